"""Following a schedule loads nothing that only searching and drawing need."""

import subprocess
import sys
from pathlib import Path

import pytest

from automix.operator_info import Operator
from tests.experiments.tiny_replay import outputs, schedule_of, tiny
from tests.source_rules import ROOT

HEAVY = ("agents", "envs", "gymnasium", "matplotlib", "optuna", "pandas", "stable_baselines3")
SCRIPT = f"""
import sys
import automix.integrations
from automix.cli.main import main
schedule, config, folder = sys.argv[1:]
assert main(["replay", schedule, config, "--output", folder]) == 0
assert main(["replay", "--resume", folder]) == 0
heavy = [name for name in {HEAVY} if name in sys.modules]
sys.exit(f"loaded: {{heavy}}" if heavy else 0)
"""


@pytest.mark.slow
def test_the_command_loads_neither_environments_nor_agents_nor_figures(tmp_path: Path) -> None:
    schedule, config, folder = (tmp_path / name for name in ("schedule.json", "tiny.yaml", "run"))
    schedule_of(Operator.CUTMIX).schedule.save(schedule)
    config.write_text(tiny().to_yaml())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, (schedule, config, folder))],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert outputs(folder)["result"]["kind"] == "replay"
