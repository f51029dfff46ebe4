"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("agents", "automix", "envs")
# What people call has an example, by the name of its docstring.
SHOWN = {
    "automix.operators.registry.mix",
    "automix.operators.manifold_mixup.manifold_mixup",
    "automix.schedule.Schedule",
    "automix.integrations.scheduled_mix.ScheduledMix",
    "envs.mixing_env.MixingEnv",
    "envs.rlmix.env.RLMixEnv",
    *(
        f"{spec.function.__module__}.{spec.function.__name__}"
        for operator, spec in OPERATORS.items()
        if operator is not Operator.NONE
    ),
}


def names_of_modules() -> Iterator[str]:
    for package in PACKAGES:
        yield package
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            yield module.name


def modules_with_examples() -> list[str]:
    """Return the modules whose text has a prompt: the others need not be imported."""
    names = []
    for name in names_of_modules():
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        if ">>> " in Path(spec.origin).read_text(encoding="utf-8"):
            names.append(name)
    return names


def examples() -> dict[str, doctest.DocTest | str]:
    """Return the examples by name; for a module, the name of the optional extra that it lacks."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    result: dict[str, doctest.DocTest | str] = {}
    for name in modules_with_examples():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] in PACKAGES:
                raise
            result[name] = error.name
        else:
            result |= {test.name: test for test in finder.find(module, name) if test.examples}
    return result


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[name]
    if isinstance(example, str):
        pytest.skip(f"{example} is not installed")
    monkeypatch.chdir(tmp_path)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    result = runner.run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def test_what_people_call_has_an_example() -> None:
    missing = {name for name in SHOWN - EXAMPLES.keys() if name.rpartition(".")[0] not in EXAMPLES}
    assert missing == set()
