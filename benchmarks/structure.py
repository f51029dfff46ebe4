"""Amount of code that a command runs through: files, functions, and frames down to a training step.

    python -m benchmarks.structure replay docs/schedules/digits.json configs/replay/digits.yaml \
        --output runs/structure
    python -m benchmarks.structure --source

The first form runs a command of `automix` under a profile hook. The second one counts the source:
files, lines, comment lines per code line, and the imports between the rooms of `experiments`.
"""

import ast
import importlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("automix", "envs", "agents")
STEP = ("automix/training/step.py", "__call__")
_PREFIXES = tuple(f"{ROOT / name}/" for name in PACKAGES)


class CalledCode:
    """Profile hook that remembers every function of the packages called outside of an import.

    Attributes:
        stacks: functions from the outermost to the called one, at the first call of each function.
    """

    def __init__(self) -> None:
        self.stacks: dict[CodeType, list[CodeType]] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Remember the function that is called; see `sys.setprofile`."""
        code = frame.f_code
        if event != "call" or code in self.stacks or not code.co_filename.startswith(_PREFIXES):
            return
        stack = [caller.f_code for caller in _ancestors(frame)]
        # What runs at import (tables, class bodies, decorators) is not part of the command.
        if code.co_name != "<module>" and not any(_is_import(ancestor) for ancestor in stack):
            self.stacks[code] = stack[::-1]

    def functions_by_file(self) -> Counter[str]:
        """Return how many functions were called in each file; lambdas and the like do not count."""
        return Counter(
            code.co_filename.removeprefix(f"{ROOT}/")
            for code in self.stacks
            if not code.co_name.startswith("<")
        )

    def frames_to(self, file: str, function: str) -> list[str]:
        """Return the frames from `main` down to a function, of any library, or an empty list."""
        for code, stack in self.stacks.items():
            if code.co_filename.endswith(file) and code.co_name == function:
                names = [f"{Path(item.co_filename).name}:{item.co_qualname}" for item in stack]
                return names[names.index("main.py:main") :]
        return []


def run_profiled(argv: list[str]) -> CalledCode:
    """Run a command of `automix` in this process and return what was called."""
    main = importlib.import_module("automix.cli.main").main
    called = CalledCode()
    threading.setprofile(called)
    sys.setprofile(called)
    try:
        main(argv)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return called


def count_lines(paths: list[Path]) -> Counter[str]:
    """Return the numbers of files and of code, docstring, comment and blank lines."""
    lines = Counter({"files": len(paths)})
    for path in paths:
        text = path.read_text(encoding="utf-8")
        docstrings = set(_docstring_lines(ast.parse(text)))
        for number, line in enumerate(text.splitlines(), start=1):
            stripped = line.strip()
            if number in docstrings:
                lines["docstring"] += 1
            elif not stripped:
                lines["blank"] += 1
            else:
                lines["comment" if stripped.startswith("#") else "code"] += 1
    return lines


def room_arrows(package: str) -> set[tuple[str, str]]:
    """Return the imports between the rooms (folders and modules) directly inside a package."""
    folder = ROOT / package.replace(".", "/")
    arrows = set()
    for path in folder.rglob("*.py"):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}".removeprefix(f"{package}.")
                    if name != f"{node.module}.{alias.name}":
                        arrows.add((room, name.partition(".")[0]))
    return {(importer, imported) for importer, imported in arrows if importer != imported}


def _ancestors(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_import(code: CodeType) -> bool:
    return code.co_filename.startswith("<frozen importlib")


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _print_source() -> None:
    lines = count_lines([path for name in PACKAGES for path in (ROOT / name).rglob("*.py")])
    total = sum(lines.values()) - lines["files"]
    print(f"{lines['files']} files, {total:,} lines: {dict(lines)}")
    print(f"comment lines per code line: {lines['comment'] / lines['code']:.3f}")
    arrows = room_arrows("automix.experiments")
    rooms = {room for arrow in arrows for room in arrow}
    print(f"experiments: {len(rooms)} rooms, {len(arrows)} arrows between them")


def _print_called(called: CalledCode) -> None:
    by_file = called.functions_by_file()
    for file, count in sorted(by_file.items()):
        print(f"{count:5d}  {file}")
    print(f"{len(by_file)} files with a called function, {by_file.total()} functions called")
    frames = called.frames_to(*STEP)
    print(f"{len(frames)} frames from the command to a training step: {' > '.join(frames)}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--source"]:
        _print_source()
    else:
        _print_called(run_profiled(sys.argv[1:]))
