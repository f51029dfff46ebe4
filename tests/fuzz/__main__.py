"""Fuzz the readers for minutes each: with Atheris, which follows coverage, or else Hypothesis.

    python -m tests.fuzz [--minutes 10] [READER ...]

A file on which a reader fails is written to FAILURES; once mended, it belongs to the corpus.
"""

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutations import mutated
from tests.fuzz.readers import CORPUS, READERS, check, corpus_of

FAILURES = Path(".fuzz")
_EXAMPLES_PER_ROUND = 500


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--minutes", type=float, default=10.0, help="for each reader")
    parser.add_argument("--atheris", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    unknown = set(flags.readers) - READERS.keys()
    if unknown:
        parser.error(f"expected readers among {', '.join(READERS)}, got {', '.join(unknown)}")
    has_atheris = importlib.util.find_spec("atheris") is not None
    if flags.atheris:
        with_atheris(*flags.readers, minutes=flags.minutes)
        return 0
    num_failed = 0
    for name in flags.readers or READERS:
        started = time.monotonic()
        if has_atheris:
            # libFuzzer ends its process: one for each reader.
            command = [sys.executable, "-m", "tests.fuzz", "--atheris", name]
            code = subprocess.run([*command, f"--minutes={flags.minutes}"], check=False).returncode
            outcome = "no fault" if code == 0 else f"a fault, see {FAILURES}"
        else:
            outcome = with_hypothesis(name, minutes=flags.minutes)
        num_failed += "no fault" not in outcome
        print(f"{name}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)
    return min(num_failed, 1)


def with_hypothesis(name: str, *, minutes: float) -> str:
    """Try mutated files until the time is over; return the outcome."""
    reader, end, count = READERS[name], time.monotonic() + 60 * minutes, 0
    corpus = corpus_of(name)
    failing: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        number = time.time_ns()
        while time.monotonic() < end:
            # Anew each round, as a run remembers all that it tried.
            @seed(number + count)
            @settings(
                max_examples=_EXAMPLES_PER_ROUND,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            )
            @given(content=mutated(corpus))
            def one_round(content: bytes) -> None:
                nonlocal count
                # What is left of a round is quick.
                if time.monotonic() > end and not failing:
                    return
                count += 1
                try:
                    check(reader, content, Path(folder))
                except Exception:
                    failing.append(content)
                    raise

            try:
                one_round()
            except Exception as error:
                path = _kept(name, failing[-1])
                return f"{type(error).__name__} after {count} files, see {path}"
    return f"no fault in {count} files"


def with_atheris(name: str, *, minutes: float) -> None:
    """Run libFuzzer on one reader; does not return."""
    import atheris  # type: ignore[import-not-discovered, import-untyped, unused-ignore]  # noqa: PLC0415

    folder = Path(tempfile.mkdtemp())
    reader = READERS[name]

    def one(content: bytes) -> None:
        check(reader, content, folder)

    FAILURES.mkdir(exist_ok=True)
    atheris.instrument_all()
    arguments = [f"-max_total_time={round(60 * minutes)}", "-rss_limit_mb=4096", "-timeout=30"]
    arguments += [f"-artifact_prefix={FAILURES}/{name}-", "-verbosity=0"]
    # New files that reach new code go to the first folder, not into the committed corpus.
    discovered = FAILURES / f"corpus-{name}"
    discovered.mkdir(exist_ok=True)
    atheris.Setup([sys.argv[0], *arguments, str(discovered), str(CORPUS / name)], one)
    atheris.Fuzz()


def _kept(name: str, content: bytes) -> Path:
    FAILURES.mkdir(exist_ok=True)
    path = FAILURES / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    sys.exit(main())
