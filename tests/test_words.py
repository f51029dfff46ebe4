"""The lint over words notices what it has to; `make check` runs it over the project."""

import pytest

from tests import word_rules


@pytest.mark.parametrize(
    "text",
    [
        "# two trainings\n",
        '"""Which of them."""\n',
        "share_of_batches = 1\n",
        "found = []\n",
        "def f(own: int) -> None: ...\n",
        "x = 'the run goes on'\n",
        "# a share of the batches\n",
        "# one training, then another\n",
        "# the optimiser\n",
        "x = 'two trainings'\n",
    ],
)
def test_other_words_are_noticed(text: str) -> None:
    assert word_rules.problems(text, is_python=True)


@pytest.mark.parametrize(
    "text",
    [
        "# two training runs\n",
        '"""Return the fraction of mixed batches."""\n',
        "# one training batch at a time; optimistic\n",
        "shared = 1\n",
        "cost['trainings'] = f'{cost[\"trainings\"]} runs'\n",
    ],
)
def test_words_of_the_field_pass(text: str) -> None:
    assert not word_rules.problems(text, is_python=True)


def test_documents_are_checked_as_prose() -> None:
    assert word_rules.problems("# A data set\n", is_python=False) == [
        (1, "'data set': say dataset")
    ]
