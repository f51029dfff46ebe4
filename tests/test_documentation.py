"""The documents say what the program does."""

import json
import re
from pathlib import Path

import pytest

import automix
from automix.configuration.base import MAX_CONFIG_BYTES
from automix.operator_info import OPERATOR_FACTS
from automix.schedule import MAX_SCHEDULE_BYTES, MAX_SEGMENTS, Schedule

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/schedule.md",
    "docs/evaluation.md",
    "docs/environment.md",
    "docs/rlmix.md",
    "docs/ablation.md",
    "docs/report.md",
    "docs/saliency.md",
    "docs/integrations.md",
    "docs/benchmarks.md",
]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="ascii")


def code(text: str, language: str) -> str:
    """Return the first block of code in a language."""
    return text.partition(f"```{language}\n")[2].partition("```")[0]


def test_the_example_schedule_is_one() -> None:
    schedule = Schedule.from_json(code(read("docs/schedule.md"), "json"), source="example")
    labels = [schedule.at(progress).label() for progress in (0, 0.5, 0.875)]
    assert labels == ["mixup 0.2", "saliency_grafting 0.2 p=0.5", "none"]


def test_the_reader_in_the_document_reads_as_we_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = read("docs/schedule.md")
    (tmp_path / "schedule.json").write_text(code(document, "json"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code(document, "python"), names)
    reader = names["decision_at"]
    assert callable(reader)
    decisions = Schedule.load(Path("schedule.json")).decisions(37)
    assert [reader(step, 37) for step in range(37)] == [
        decision.model_dump(mode="json") for decision in decisions
    ]


def test_the_table_of_operators_is_ours() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", read("docs/schedule.md"), re.M)
    expected = []
    for operator, facts in OPERATOR_FACTS.items():
        strength = facts.strength
        span = f"{strength.low:g} to {strength.high:g}"
        span = span if strength.low < strength.high else f"{strength.low:g}"
        expected.append((operator.value, span, f"{strength.default:g}", strength.meaning))
    assert rows == expected


def test_the_limits_are_ours() -> None:
    text = read("docs/schedule.md")
    assert f"at most {MAX_SCHEDULE_BYTES:,} bytes" in text
    assert f"1 to {MAX_SEGMENTS:,} segments" in text
    security = read("SECURITY.md")
    assert f"at most {MAX_SCHEDULE_BYTES // 10**6} MB" in security
    assert f"{MAX_CONFIG_BYTES // 1000} kB" in security


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_files_that_a_document_names_are_there(name: str) -> None:
    paths = re.findall(
        r"`((?:automix|tests|docs|envs|agents|examples|benchmarks)/[\w/.-]+)`", read(name)
    )
    for path in paths:
        assert "NAME" in path or (ROOT / path).exists(), path


def test_the_targets_that_a_document_names_are_there() -> None:
    makefile = read("Makefile")
    targets = re.findall(r"^make (\w+)", read("CONTRIBUTING.md"), re.M)
    assert {"check", "test"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets)


def test_contributing_is_a_page() -> None:
    assert len(read("CONTRIBUTING.md").splitlines()) <= 85


def test_the_changelog_knows_this_version() -> None:
    headings = re.findall(r"^## \[(.*?)\]", read("CHANGELOG.md"), re.M)
    assert headings[0] in ("Unreleased", automix.__version__)


def test_the_golden_file_is_in_the_format_of_the_document() -> None:
    golden = json.loads((ROOT / "tests/golden/schedule-v1.json").read_text())
    example = json.loads(code(read("docs/schedule.md"), "json"))
    assert golden.keys() == example.keys()
    assert golden["segments"][0].keys() == example["segments"][0].keys()
