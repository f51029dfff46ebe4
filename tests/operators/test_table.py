"""Every operator of the table is an action, is searched over, and has a slow reference."""

import ast
from pathlib import Path

import pytest

from automix.experiments.config import SearchConfig
from automix.operator_info import Operator
from automix.operators.registry import OPERATORS
from envs.actions import ActionCodec
from envs.config import EnvironmentConfig

HERE = Path(__file__).parent
CONFIGS = Path(__file__).parents[2] / "configs" / "search"
every_operator = pytest.mark.parametrize("operator", list(Operator))
MIXING = [operator for operator in Operator if operator is not Operator.NONE]


def comparisons_with_loops() -> dict[str, str]:
    """Return the source of each test that compares an operator with plain loops, by its name."""
    sources = {}
    for path in sorted(HERE.glob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("agrees_with_loops"):
                sources[f"{path.stem}.{node.name}"] = ast.get_source_segment(text, node) or ""
    return sources


COMPARISONS = comparisons_with_loops()
SEARCHED = {
    path.stem: SearchConfig.from_yaml(path).environment.operators
    for path in sorted(CONFIGS.glob("*.yaml"))
}


@pytest.mark.parametrize("operator", MIXING)
def test_it_has_a_slow_reference(operator: Operator) -> None:
    function = OPERATORS[operator].function
    module = function.__module__.removeprefix("automix.operators.").replace(".", "_")
    # The test names the operator or its function, or it is the one of the file of its module.
    names = f"Operator.{operator.name}", f"{function.__name__}("
    assert [
        test
        for test, source in COMPARISONS.items()
        if any(name in source for name in names) or test == f"test_{module}.test_agrees_with_loops"
    ]


@every_operator
def test_it_is_an_action(operator: Operator) -> None:
    codec = ActionCodec(EnvironmentConfig(operators=tuple(Operator)))
    decisions = [decision for decision in codec.decisions() if decision.operator is operator]
    levels = OPERATORS[operator].facts.strength.levels
    assert {decision.strength for decision in decisions} == set(levels)
    assert all(codec.decode(codec.encode(decision)) == decision for decision in decisions)


@every_operator
def test_a_configuration_searches_over_it(operator: Operator) -> None:
    assert [name for name, operators in SEARCHED.items() if operator in operators]
