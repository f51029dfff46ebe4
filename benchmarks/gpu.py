"""Everything that is to be measured on a GPU, in parts, within nine minutes.

    make gpu
    python -m benchmarks.gpu --device cpu --minutes 2 --quick --json gpu.json
    python -m benchmarks.gpu --table --json docs/gpu.json

Runs the tests marked gpu, the benchmarks of operators, trainer and populations, and one search, and
writes one file with what was measured and the hardware. Each part has a time limit. Parts that are
done are skipped by the next call, so an interrupted kit resumes with the rest.
"""

import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from benchmarks.gpu_tables import document_tables, read_figures
from benchmarks.hardware import hardware_facts
from benchmarks.kit import DONE, Part, run_parts

# Seconds of each part out of the nine minutes.
_SECONDS = {
    "tests": 80,
    "operators-32": 50,
    "operators-224": 60,
    "trainer-float32": 60,
    "trainer-bfloat16": 60,
    "trainer-compiled": 70,
    "population": 90,
    "search": 70,
}
_TESTS = "-m pytest -q -m gpu -p no:cacheprovider"
_OPERATORS = "-m benchmarks.operators --json {json} --device"
_TRAINER = "-m benchmarks.trainer --json {json}"
_POPULATION = "-m benchmarks.population --json {json}"
_SEARCH = "-m automix search configs/search/digits.yaml --output {folder} --selection.rounds 1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Tests, benchmarks and a search on one GPU, in parts, within nine minutes."""

    json: Path = Path("runs/gpu/gpu.json")
    """File for the figures; the logs are beside it."""
    device: Literal["accelerator", "cpu"] = "accelerator"
    """cpu: try the kit out on a machine without an accelerator."""
    minutes: float = 9.0
    """Time limit of all parts together."""
    quick: bool = False
    """Measure next to nothing, to see whether every part runs."""
    again: bool = False
    """Run the parts that are done, too."""
    table: bool = False
    """Print the tables of docs/benchmarks.md from the file, and run nothing."""


def kit_parts(*, device: str, minutes: float, quick: bool) -> list[Part]:
    """Return the parts in their order; ``device`` is that of the operators' benchmark."""
    commands = _quick_commands(device) if quick else _commands(device)
    scale = 60 * minutes / sum(_SECONDS.values())
    return [
        Part(name=name, command=commands[name], seconds=scale * seconds)
        for name, seconds in _SECONDS.items()
    ]


def _commands(device: str) -> dict[str, str]:
    # Four steps at once: the host waits once in four, in a training run once in a segment.
    trainer = f"{_TRAINER} --steps 4 --rounds 5 --batch-size"
    fast = "1024 --precision bf16 --channels-last"
    # An accelerator has room for more training runs at once than a process on a core.
    side_by_side = "--agent.num-environments 32 --compute.population 32"
    learning = f"--agent.episodes 64 --agent.episodes-per-rollout 32 {side_by_side}"
    return {
        "tests": _TESTS,
        "operators-32": f"{_OPERATORS} {device} --batches 128 1024",
        "operators-224": f"{_OPERATORS} {device} --batches 128 --size 224 224 --rounds 15",
        "trainer-float32": f"{trainer} 128",
        "trainer-bfloat16": f"{trainer} {fast}",
        "trainer-compiled": f"{trainer} {fast} --compile --only 'no mixing' mixup",
        "population": f"{_POPULATION} --populations 4 16 32 --rounds 2 --segments 2 --runs 16",
        "search": f"{_SEARCH} {learning} --selection.first-seeds 1",
    }


def _quick_commands(device: str) -> dict[str, str]:
    operators = f"{_OPERATORS} {device} --batches 4 --rounds 1 --ours-only --only mixup --size"
    trainer = f"{_TRAINER} --model.name small_cnn --batch-size 4 --size 8 --rounds 1"
    trainer = f"{trainer} --only 'no mixing'"
    # Without an accelerator, matrix products in bfloat16 take minutes.
    fast = "--channels-last" if device == "cpu" else "--channels-last --precision bf16"
    learning = "--agent.episodes 2 --agent.episodes-per-rollout 2 --agent.num-environments 2"
    return {
        "tests": f"{_TESTS} tests/operators/test_on_a_gpu.py",
        "operators-32": f"{operators} 32 32",
        "operators-224": f"{operators} 64 64",
        "trainer-float32": trainer,
        "trainer-bfloat16": f"{trainer} {fast}",
        "trainer-compiled": f"{trainer} {fast}",
        "population": f"{_POPULATION} --populations 2 --rounds 1 --segments 1 --runs 0",
        "search": f"{_SEARCH} {learning} --selection.first-seeds 1 --task.trainer.epochs 6",
    }


def main(options: Options) -> int:
    """Run what is missing; return 0, 1 if a part did not end well, or 2 without an accelerator."""
    if options.table:
        print(document_tables(read_figures(options.json)))
        return 0
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None and options.device == "accelerator":
        print("gpu: expected an accelerator, got none; --device cpu tries the kit out without one")
        return 2
    device = "cpu" if accelerator is None else str(accelerator)
    parts = kit_parts(device=device, minutes=options.minutes, quick=options.quick)
    # An ended kit ends its part: `run_part` does on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        content = run_parts(
            parts, file=options.json, hardware=hardware_facts(), again=options.again
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    states = [content["parts"][part.name]["state"] for part in parts]
    print(f"{states.count(DONE)} of {len(parts)} parts are done: {options.json}")
    return 0 if states.count(DONE) == len(parts) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=Options.__doc__)))
