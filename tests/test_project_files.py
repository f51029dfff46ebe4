"""Files that other tools read: notebook, citation, workflow, container; and the gallery."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import automix
from automix.operator_info import OPERATOR_FACTS, Operator
from benchmarks.operator_gallery import page, picture

ROOT = Path(__file__).parents[1]
MIXING = [operator for operator in Operator if operator is not Operator.NONE]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="ascii")


def test_the_notebook_runs_from_top_to_bottom(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = json.loads(read("examples/first_schedule.ipynb"))
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)
    names: dict[str, Any] = {"__name__": "notebook"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert names["accuracy"] > 0.7
    assert len(names["best"][1].segments) == 3
    assert capsys.readouterr().out.count("accuracy on the test images") == 2


def test_the_notebook_is_one() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat comes with Jupyter")
    nbformat.validate(nbformat.read(ROOT / "examples/first_schedule.ipynb", as_version=4))


def test_the_gallery_is_what_its_program_writes() -> None:
    assert read("docs/operators.md") == page(MIXING)
    operators = ROOT / "docs" / "operators"
    assert {path.stem for path in operators.glob("*.png")} == {one.value for one in MIXING}
    assert sum(path.stat().st_size for path in operators.iterdir()) < 1_000_000
    # The bytes of others than this one may differ by a rounding between processors.
    assert picture(Operator.CUTMIX).startswith(b"\x89PNG")
    assert all(OPERATOR_FACTS[operator].paper for operator in MIXING)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == automix.__version__
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "authors", "message", "license"} <= citation.keys()


def test_the_workflow_calls_targets_that_are_there() -> None:
    jobs = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["make test", "make docs"]
    makefile = read("Makefile")
    assert all(re.search(rf"^{command.split()[1]}:", makefile, re.M) for command in commands)
    # Its --quiet would switch --strict off.
    assert re.search(r"mkdocs build --strict$", makefile, re.M)
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(path.read_text())


def test_the_container_has_what_an_installation_needs() -> None:
    lines = read("Dockerfile").replace("\\\n", " ").splitlines()
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    packages = {"automix", "envs", "agents", "configs"}
    assert packages | {"pyproject.toml", "setup.py", "README.md", "LICENSE"} <= copied
    assert "ARG DEVICE=cpu" in lines
