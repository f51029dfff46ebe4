"""Blocks and links of the documents: Python runs, files parse, commands exist, links resolve."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from automix.cli.main import main
from automix.experiments.commands import COMMANDS
from automix.schedule import Schedule

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
DOCUMENTS = [*PAGES, "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
# Blocks that begin so need what a block cannot hold; other tests run what they say.
NOT_EXECUTED = {
    "from automix.integrations.transformers import mix_in_trainer": "a Trainer: tests/integrations",
    "from pathlib import Path\n\nfrom agents.outcomes": "a table: tests/agents/test_outcomes.py",
    "import gymnasium\nfrom stable_baselines3 import PPO": "a minute: tests/envs/test_rlmix.py",
}
KINDS = {"python", "json", "yaml", "bash", ""}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="ascii")


def blocks(name: str) -> list[tuple[str, str]]:
    """Return language and text of the blocks of a document, those that are indented as well."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", read(name), re.M | re.S)
    prose = re.sub(r"^```.*?^```$", "", read(name), flags=re.M | re.S)
    indented = re.findall(r"(?:^\n)((?:^    [^-*\s].*\n)+)", prose, re.M)
    return [*fenced, *(("", text) for text in indented)]


ALL = [(name, kind, text) for name in DOCUMENTS for kind, text in blocks(name)]


class Tiny(torch.nn.Module):
    """A network with a layer of the name that documents use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer2 = torch.nn.Conv2d(3, 4, 8, stride=8)
        self.head = torch.nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.layer2(images).mean(dim=(2, 3)))
        return logits


def surroundings() -> dict[str, Any]:
    """Return what a reader has before the first line of a document: data, network, schedule."""
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 9])
    return {
        "torch": torch,
        "images": images,
        "labels": labels,
        "loader": [(images, labels)] * 2,
        "epochs": 1,
        "model": Tiny(),
        "generator": torch.Generator().manual_seed(0),
        "criterion": torch.nn.CrossEntropyLoss(reduction="none"),
        "cross_entropy": torch.nn.functional.cross_entropy,
        "augment": torch.nn.Identity(),
    }


@pytest.mark.parametrize("name", sorted({name for name, kind, _ in ALL if kind == "python"}))
def test_the_python_of_a_document_runs_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Schedule.recommended().save(tmp_path / "schedule.json")
    names = surroundings()
    for _, kind, text in (one for one in ALL if one[0] == name):
        if kind != "python" or any(text.startswith(start) for start in NOT_EXECUTED):
            continue
        try:
            if "LightningModule" in text:
                names["LightningModule"] = importlib.import_module("lightning").LightningModule
            exec(text, names)
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] in ("automix", "envs", "agents", "examples"):
                raise
            pytest.skip(f"{error.name} is an extra")


def test_what_is_not_executed_is_there() -> None:
    assert all(any(text.startswith(start) for *_, text in ALL) for start in NOT_EXECUTED)


def test_blocks_are_of_kinds_that_are_checked() -> None:
    assert {kind for _, kind, _ in ALL} <= KINDS
    for _, kind, text in ALL:
        if kind == "json":
            json.loads(text)
        if kind == "yaml":
            yaml.safe_load(text)


def shell_lines() -> Iterator[list[str]]:
    for _, kind, text in ALL:
        if kind in ("bash", ""):
            for line in text.replace("\\\n", " ").splitlines():
                if re.match(r"\s*(automix|make|python|pip|torchrun) ", line):
                    yield shlex.split(line, comments=True)


def test_commands_of_documents_have_the_flags_that_they_use(
    capsys: pytest.CaptureFixture[str],
) -> None:
    helps: dict[str, str] = {}
    lines = [line[line.index("automix") + 1 :] for line in shell_lines() if "automix" in line]
    assert len(lines) > 30
    for argv in lines:
        if argv[:1] in (["..."], ["--help"], ["--version"]):
            continue
        name = next((" ".join(argv[:n]) for n in (2, 1) if " ".join(argv[:n]) in COMMANDS), "")
        assert name, argv
        if name not in helps:
            assert main([*name.split(), "--help", "all"]) == 0
            helps[name] = capsys.readouterr().out
        for flag in (word.partition("=")[0] for word in argv if word.startswith("--")):
            assert re.search(rf"{flag}\b", helps[name]), (argv, flag)


def test_modules_targets_and_extras_that_documents_name_are_there() -> None:
    makefile = read("Makefile")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for argv in shell_lines():
        if argv[0] == "make":
            assert re.search(rf"^{argv[1]}:", makefile, re.M), argv
        if argv[:2] == ["python", "-m"]:
            top = argv[2].partition(".")[0]
            ours = top in ("automix", "benchmarks", "tests", "examples", "envs", "agents")
            assert not ours or importlib.util.find_spec(argv[2]), argv
        for extras in re.findall(r"automix\[([\w,]+)\]", " ".join(argv)):
            assert set(extras.split(",")) <= project["optional-dependencies"].keys(), argv


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and Python-Markdown make it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", plain).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    prose = re.sub(r"^```.*?^```$", "", read(name), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, fragment = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            assert fragment in map(anchor, headings), target


def test_the_site_has_every_page() -> None:
    site = yaml.safe_load(read("mkdocs.yml"))

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        items = entry if isinstance(entry, list) else entry.values()
        return [page for item in items for page in pages(item)]

    assert sorted(f"docs/{page}" for page in pages(site["nav"])) == PAGES
    assert site["strict"] is True
    assert site["theme"]["font"] is False
    reference = re.findall(r"^::: ([\w.]+)", read("docs/reference.md"), re.M)
    assert reference
    assert all(importlib.util.find_spec(module) for module in reference)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("mkdocstrings", reason="the builder of the site is an extra")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) >= len(PAGES)
    for page in pages:
        # Links may lead elsewhere; what a browser loads by itself may not.
        tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text())
        assert not [tag for tag in tags if re.search(r"(?:src|href)=\"?(?:https?:)?//", tag)], page
