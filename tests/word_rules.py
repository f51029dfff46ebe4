"""Words that the field does not use, or uses for something else: ``python -m tests.word_rules``.

Names are checked in the syntax tree, prose in comments, strings and documents. A word is in the
table because it stood in this project where ten codebases of the field say something else.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("automix", "envs", "agents", "benchmarks", "examples", "tests", "docs", "configs")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
# The rules and their tests have to spell out what they refuse.
_EXEMPT = {"tests/word_rules.py", "tests/test_words.py"}

# A name says what a thing is, not what happened to it.
_NAMES = frozenset(
    {
        "found", "own", "wanted", "given", "known", "each", "words", "asked", "so_far", "stays",
        "his", "theirs", "luck",
    }
)  # fmt: skip
# Parts of names, with what the field says.
_PARTS = {"share": "fraction or probability", "trainings": "runs", "optimiser": "optimizer"}
# "one training run" and "a training batch", but not "one training".
_AFTER_TRAINING = (
    r"(?:runs?|sets?|images?|loss|losses|seeds?|splits?|batch|batches|steps?|data|dataset|curve|"
    r"time|metrics|labels?|examples|samples|loops?|epochs?|process|processes|device|jobs?|"
    r"recipes?|protocol|network|tasks?|order|budget|code|state|script|progress|and|with|pool|"
    r"length|mode|classifiers?|regime|pass|passes|pipeline|accuracy|dynamics|photographs?|pixels?)"
)
_PROSE = (
    (r"\btrainings\b", "training runs"),
    (
        r"\b(?:a|one|each|every|another|whole|single|finished|interrupted) training\b"
        rf"(?![- ]{_AFTER_TRAINING}\b)(?!\s*\n)",
        "training run",
    ),
    (r"\b[Ss]hares? of\b", "fraction of"),
    (r"\b[Dd]ata sets?\b", "dataset"),
    (r"\btold apart\b", "significantly different"),
    (r"\b(?:goes|go|going|went|gone) on\b", "resumes or continues"),
    (r"\bin hand\b|\bdeaf\b|\bfor people\b|\bcame of\b|\bluck\b", "plain words"),
    (r"\bwarm[- ]up\b", "warmup"),
    (
        r"ptimis(?!t)|ormalis|nitialis|eneralis|egularis|ynchronis|olour|ehaviour|eighbour|"
        r"\b[Cc]entre|abelled|ocalis|ummaris|tandardis|inimis(?!m)|ecognis",
        "American spelling",
    ),
    (r"\b[Gg]rey\b", "gray"),
)
_PATTERNS = tuple((re.compile(pattern), better) for pattern, better in _PROSE)
# A quoted word is a key: of a checkpoint, of a recorded array, of a configuration of version 0.1.
_KEY = re.compile(r"(['\"])[\w{}]+\1")
_QUESTION = re.compile(r"(What|Where|Which|How|Who)\b")

Problem = tuple[int, str]


def problems(text: str, *, is_python: bool) -> list[Problem]:
    """Return lines and words of a text that the field would not write."""
    if not is_python:
        return sorted(_in_prose((1, text)))
    tree = ast.parse(text)
    result = {*_in_names(tree), *_in_docstrings(tree)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            result.update(_in_prose((token.start[0], _KEY.sub("", token.string))))
    return sorted(result)


def checked_files() -> list[Path]:
    """Return the sources, tests, documents and configurations of the project."""
    paths = [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    paths += [ROOT / name for name in DOCUMENTS]
    return sorted(
        path
        for path in paths
        if path.suffix in (".py", ".md", ".yaml")
        and path.relative_to(ROOT).as_posix() not in _EXEMPT
    )


def _in_prose(part: tuple[int, str]) -> Iterator[Problem]:
    line, text = part
    for pattern, better in _PATTERNS:
        for match in pattern.finditer(text):
            yield line + text[: match.start()].count("\n"), f"{match[0]!r}: say {better}"


def _in_names(tree: ast.Module) -> Iterator[Problem]:
    for line, name in _assigned_names(tree):
        if name.strip("_") in _NAMES:
            yield line, f"name {name!r}: say what it is"
        for part in set(name.lower().split("_")) & _PARTS.keys():
            yield line, f"name {name!r}: say {_PARTS[part]}"


def _assigned_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


def _in_docstrings(tree: ast.Module) -> Iterator[Problem]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            match = _QUESTION.match(ast.get_docstring(node) or "")
            if match:
                line = 1 if isinstance(node, ast.Module) else node.lineno
                yield line, f"docstring begins with {match[0]!r}: begin with a verb or a noun"


def main() -> int:
    """Print every problem of the project; return 1 if there is any."""
    count = 0
    for path in checked_files():
        text = path.read_text(encoding="utf-8")
        for line, problem in problems(text, is_python=path.suffix == ".py"):
            print(f"{path.relative_to(ROOT)}:{line}: {problem}")
            count += 1
    print(f"{count} words" if count else "words of the field only")
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main())
