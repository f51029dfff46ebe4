"""The losses of 100 steps with every operator; run as a program, prints them as JSON.

`python -m tests.training.golden_losses --add` adds the operators that the golden file lacks;
without the flag it prints all losses. It starts itself again with kernels that every x86-64
processor has and uses alike: the choice that torch, oneDNN and MKL otherwise make for the processor
at hand changes the last bits.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "losses.json"
NUM_STEPS = 100
_PORTABLE_KERNELS = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}


class Losses(TypedDict):
    """Losses by operator, one for each step, and what they were computed with."""

    torch: str
    machine: str
    losses: dict[str, list[float]]


def with_portable_kernels() -> str:
    """Return what this program prints, run in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.training.golden_losses"],
        cwd=ROOT,
        env=os.environ | _PORTABLE_KERNELS,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


def losses() -> Losses:
    """Train with every operator in this process."""
    # Imported here: torch chooses its kernels when it is loaded.
    import torch  # noqa: PLC0415

    from automix.configuration.trainer import TrainerConfig  # noqa: PLC0415
    from automix.operators.registry import OPERATORS  # noqa: PLC0415
    from automix.schedule import Decision  # noqa: PLC0415
    from automix.training.trainer import (  # noqa: PLC0415
        build_trainer,
        load_search_data,
    )
    from tests.training.conftest import TASK  # noqa: PLC0415

    torch.set_num_threads(1)
    config = TrainerConfig.model_validate(TASK.trainer.model_dump() | {"epochs": 34})
    task = TASK.model_copy(update={"trainer": config})
    trainer = build_trainer(task, load_search_data(TASK.data), seed=0)
    by_operator = {}
    for operator in OPERATORS:
        trainer.reset(0)
        decision = Decision(operator=operator, probability=0.75)
        by_operator[operator.value] = [
            trainer.train(decision, num_steps=1).loss for _ in range(NUM_STEPS)
        ]
    return Losses(torch=torch.__version__, machine=platform.machine(), losses=by_operator)


def as_text(values: Losses) -> str:
    """Return JSON with a line for each operator; numbers are exact."""
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in values["losses"].items()]
    head = "".join(f'"{name}": "{values[name]}",\n' for name in ("torch", "machine"))
    return "{" + head + '"losses": {\n' + ",\n".join(lines) + "}}\n"


def add_missing() -> None:
    """Add what the golden file lacks; its own numbers stay, whatever processor this is."""
    golden: Losses = json.loads(GOLDEN.read_text())
    computed: Losses = json.loads(with_portable_kernels())
    GOLDEN.write_text(as_text(golden | {"losses": computed["losses"] | golden["losses"]}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--add"]:
        add_missing()
    elif all(os.environ.get(name) == value for name, value in _PORTABLE_KERNELS.items()):
        sys.stdout.write(as_text(losses()))
    else:
        sys.stdout.write(with_portable_kernels())
