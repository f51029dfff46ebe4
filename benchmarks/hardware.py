"""The machine that figures come from."""

import contextlib
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from automix.worker_processes import num_cores

_GIB = 1 << 30

Hardware = dict[str, str | int | float | None]


def hardware_facts() -> Hardware:
    """Return accelerator, its memory in GiB and driver, releases of PyTorch and CUDA, processor."""
    facts: Hardware = {"accelerator": None, "memory_gib": None, "driver": None, "runtime": None}
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is not None:
        properties = torch.get_device_module(device).get_device_properties(0)
        facts["accelerator"] = str(properties.name)
        facts["memory_gib"] = round(properties.total_memory / _GIB, 1)
        facts["driver"] = _driver()
        facts["runtime"] = torch.version.cuda or torch.version.hip
    return facts | {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": num_cores(),
    }


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return answer.partition("\n")[0].strip() or None


def _processor() -> str:
    # Only Linux names the processor there; `platform` knows no more than its kind.
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
