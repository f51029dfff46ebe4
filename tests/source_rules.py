"""Calls and constants that the sources must not contain, read from their syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("automix", "envs", "agents")

# Each runs code that is in the file or text it is given.
_RUNS_CODE = frozenset(
    {
        "eval", "exec", "compile", "__import__", "input",
        "pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads",
        "dill.load", "dill.loads", "joblib.load", "marshal.load", "marshal.loads", "shelve.open",
        "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "torch.jit.load", "torch.hub.load",
        "pandas.read_pickle", "os.system", "os.popen", "runpy.run_path",
        "stable_baselines3.PPO.load", "stable_baselines3.common.vec_env.VecNormalize.load",
        "stable_baselines3.common.save_util.load_from_pkl",
        "stable_baselines3.common.save_util.load_from_zip_file",
    }
)  # fmt: skip
# Text of others is escaped in one place for each kind of output; the files that do it, by call.
_ESCAPES = {
    "html.escape": ("automix/escapes.py",),
    "cgi.escape": (),
    "markupsafe.escape": (),
    "xml.sax.saxutils.escape": (),
    "xml.sax.saxutils.quoteattr": (),
    "unicodedata.category": ("automix/escapes.py",),
    "markupsafe.Markup": ("automix/reporting/html.py", "automix/reporting/page.py"),
    "csv.writer": ("automix/reporting/tables.py",),
    "csv.DictWriter": (),
    "sys.stdout.write": (),
    "sys.stderr.write": (
        "automix/cli/main.py",
        "automix/executors/processes.py",
        "automix/experiments/common/run_folder.py",
    ),
}
# Each opens a connection or starts a program. By the beginning of the name: of whole modules, and
# of the collectives that unpickle what comes through the open port of a process group.
_OPENS = {
    "socket.": (),
    "socketserver.": (),
    "ssl.": (),
    "http.": (),
    "urllib.request.": (),
    "requests.": (),
    "subprocess.": (),
    "os.exec": (),
    "os.spawn": (),
    "os.posix_spawn": (),
    "asyncio.create_subprocess": (),
    "asyncio.open_connection": (),
    "asyncio.start_server": (),
    "multiprocessing.connection.Listener": (),
    "multiprocessing.connection.Client": (),
    "multiprocessing.managers.": (),
    "torch.distributed.rpc.": (),
    "torch.distributed.TCPStore": (),
    # Under torchrun alone, see SECURITY.md.
    "torch.distributed.init_process_group": ("automix/training/distributed.py",),
}
_GLOBAL_RANDOM = frozenset(
    {
        "torch.manual_seed", "torch.seed", "torch.cuda.manual_seed",
        "torch.cuda.manual_seed_all", "numpy.random.seed", "random.seed",
    }
)  # fmt: skip
_NUMPY_GENERATORS = frozenset({"default_rng", "Generator", "SeedSequence", "PCG64", "Philox"})
# State that is read and put back, so that a library that needs it leaves no trace.
_STATES = frozenset({"get_state", "set_state", "getstate", "setstate"})


def sources() -> list[Path]:
    """Return every source file of the packages."""
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def violations(source: str, *, where: str = "", may_print: bool = False) -> list[str]:
    """Return what in the source text of the file ``where`` breaks a rule, as ``line: reason``."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    docstrings = set(_docstrings(tree))
    problems: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func, names)
            reason = _call_problem(node, name, may_print=may_print)
            for beginning, files in _OPENS.items():
                if name.startswith(beginning) and where not in files:
                    reason = f"{name} opens a connection or starts a program"
            if name.startswith("torch.distributed.") and "_object" in name:
                reason = f"{name} unpickles what others send"
            if where not in _ESCAPES.get(name, (where,)):
                reason = f"{name} outside of the one place for it"
        elif isinstance(node, ast.Constant) and id(node) not in docstrings:
            reason = _constant_problem(node.value)
        else:
            continue
        if reason:
            problems.append((node.lineno, reason))
    return [f"{line}: {reason}" for line, reason in sorted(problems)]


def _call_problem(call: ast.Call, name: str, *, may_print: bool) -> str | None:
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    checks = (
        (name in _RUNS_CODE, f"{name} runs code"),
        (name == "print" and not may_print, "print outside the command line"),
        (name in _GLOBAL_RANDOM or _draws_globally(name), f"{name} uses a global generator"),
        (name == "torch.load" and not _is(keywords.get("weights_only"), True), "unsafe torch.load"),
        (
            name == "numpy.load" and not _is(keywords.get("allow_pickle"), False),
            "numpy.load without allow_pickle=False",
        ),
        (
            name == "yaml.load"
            and not (
                isinstance(loader := keywords.get("Loader"), ast.Name)
                and loader.id == "_PlainLoader"
            ),
            "yaml.load without our loader",
        ),
        ("shell" in keywords and not _is(keywords["shell"], False), "a shell"),
        (name.endswith(".cuda"), "a device by name"),
    )
    return next((reason for is_wrong, reason in checks if is_wrong), None)


def _constant_problem(value: object) -> str | None:
    is_device = isinstance(value, str) and (value == "cuda" or value.startswith("cuda:"))
    return "a device by name" if is_device else None


def _draws_globally(name: str) -> bool:
    module, _, function = name.rpartition(".")
    if module == "random":
        return function not in _STATES | {"Random", "SystemRandom"}
    return module == "numpy.random" and function not in _STATES | _NUMPY_GENERATORS


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return the full name of a function, such as ``numpy.load`` for ``np.load``."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        # A variable may be called as a module is.
        is_variable = isinstance(node.value, ast.Name) and node.value.id not in names
        return f"{'?' if is_variable else _dotted(node.value, names)}.{node.attr}"
    return "?"


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield local names with what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    (alias.asname or alias.name.partition(".")[0]),
                    (alias.name if alias.asname else alias.name.partition(".")[0]),
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name), f"{node.module}.{alias.name}"


def _docstrings(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield id(node.value)
