"""No reader fails on a damaged or hostile file: a short run of what `make fuzz` does for hours."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutated
from tests.fuzz.readers import CORPUS, READERS, check, corpus_of

# Those that build a network take tens of milliseconds each.
EXAMPLES = {"policy_facts": 10, "policy_weights": 10, "classifier_facts": 10, "run_result": 10}
EXAMPLES |= {"run_environment": 10, "run_configuration": 10}


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_or_refuses_each_file_of_its_corpus(name: str, tmp_path: Path) -> None:
    taken = [check(READERS[name], content, tmp_path) for content in corpus_of(name)]
    assert any(taken), "the corpus has no valid file"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_or_refuses_mutated_files(name: str) -> None:
    corpus = corpus_of(name)

    @settings(max_examples=EXAMPLES.get(name, 40), deadline=None)
    @given(content=mutated(corpus))
    def read(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(READERS[name], content, Path(folder))

    read()


def test_every_folder_of_the_corpus_has_its_reader() -> None:
    assert {path.name for path in CORPUS.iterdir()} == READERS.keys()
    size = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    assert size < 200_000


@given(st.data())
def test_mutations_reach_every_place(data: st.DataObject) -> None:
    assert isinstance(data.draw(mutated([b"{}"])), bytes)
