"""The documents say what the program does."""

import json
import re
from pathlib import Path

import pytest

import automix
from automix.configuration.base import MAX_CONFIG_BYTES
from automix.experiments.compare.schedule_specs import build_schedule
from automix.mixture import MAX_MIXTURE
from automix.operator_info import OPERATOR_FACTS
from automix.schedule import MAX_DECISIONS, MAX_SCHEDULE_BYTES, MAX_SEGMENTS, Schedule
from envs.config import EnvironmentConfig

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


def code(text: str, language: str, *, index: int = 0) -> str:
    """Return a block of code in a language, by default the first."""
    return text.split(f"```{language}\n")[1 + index].partition("```")[0]


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (0, ["mixup 0.2", "saliency_grafting 0.2 p=0.5", "none"]),
        (1, ["cutmix 2 p=0.5 + mixup 2 p=0.3", "cutmix 2 p=0.5 + mixup 2 p=0.3", "none"]),
    ],
)
def test_the_example_schedules_are_some(index: int, labels: list[str]) -> None:
    text = code(read("docs/schedule.md"), "json", index=index)
    schedule = Schedule.from_json(text, source="example")
    assert schedule.version == index + 1
    assert [schedule.mixture_at(it).label() for it in (0, 0.5, 0.875)] == labels


def test_the_descriptions_in_the_document_are_ours() -> None:
    descriptions = re.findall(r"^\| `([^`]+)` \| `\w+` \|", read("docs/schedule.md"), re.M)
    assert len(descriptions) == 8
    for text in descriptions:
        build_schedule(text, EnvironmentConfig(), seed=0)


@pytest.mark.parametrize("index", [0, 1])
def test_the_reader_in_the_document_reads_as_we_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    document = read("docs/schedule.md")
    (tmp_path / "schedule.json").write_text(code(document, "json", index=index))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code(document, "python"), names)
    reader = names["mixture_at"]
    assert callable(reader)
    mixtures = Schedule.load(Path("schedule.json")).mixtures(37)
    assert [reader(step, 37) for step in range(37)] == [
        [decision.model_dump(mode="json") for decision in mixture.decisions] for mixture in mixtures
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
    assert f"1 to {MAX_MIXTURE} such decisions, at most {MAX_DECISIONS:,} in the file" in text
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


@pytest.mark.parametrize("version", [1, 2])
def test_the_golden_files_are_in_the_format_of_the_document(version: int) -> None:
    golden = json.loads((ROOT / f"tests/golden/schedule-v{version}.json").read_text())
    example = json.loads(code(read("docs/schedule.md"), "json", index=version - 1))
    assert golden.keys() == example.keys()
    assert golden["segments"][0].keys() == example["segments"][0].keys()
