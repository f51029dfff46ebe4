"""The table of operators is complete and agrees with itself."""

import pytest

from automix.operator_info import OPERATOR_FACTS, Family, Operator


def test_every_operator_has_its_facts_in_order() -> None:
    assert tuple(OPERATOR_FACTS) == tuple(Operator)


@pytest.mark.parametrize("operator", Operator)
def test_facts_agree(operator: Operator) -> None:
    facts = OPERATOR_FACTS[operator]
    strength = facts.strength
    assert strength.low <= strength.default <= strength.high
    assert list(strength.levels) == sorted(set(strength.levels)), "from weak to strong"
    assert all(strength.low <= level <= strength.high for level in strength.levels)
    assert (len(strength.levels) == 1) == (strength.low == strength.high)
    saliency_families = {Family.SALIENCY_MAX, Family.SALIENCY_SAMPLED}
    assert facts.needs_saliency == (facts.family in saliency_families)
    assert facts.paper.startswith("https://") == (operator is not Operator.NONE)
    for text in (facts.summary, strength.meaning):
        assert text
        assert "\n" not in text
        assert not text.endswith(".")


def test_names_are_words_for_files_and_flags() -> None:
    assert all(operator.value.replace("_", "").isalpha() for operator in Operator)
    assert all(operator.value == operator.value.lower() for operator in Operator)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        OPERATOR_FACTS[Operator.NONE] = OPERATOR_FACTS[Operator.MIXUP]  # type: ignore[index]
