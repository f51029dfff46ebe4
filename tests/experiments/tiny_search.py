"""A whole search in about a second, and what of it must be the same whenever it is repeated."""

import json
from pathlib import Path
from typing import Any

from agents.config import AgentConfig
from automix.configuration.task import ComputeConfig
from automix.experiments.config import SearchConfig, SelectionConfig
from automix.experiments.search.learning import POLICY_NAME
from automix.experiments.search.run import SCHEDULE_NAME
from envs.smoke import SMOKE_ENVIRONMENT, SMOKE_TASK

TINY = SearchConfig(
    seed=3,
    task=SMOKE_TASK,
    environment=SMOKE_ENVIRONMENT,
    agent=AgentConfig(
        episodes=12, episodes_per_rollout=4, num_environments=2, workers="in_process"
    ),
    selection=SelectionConfig(learned_candidates=3, first_seeds=1, rounds=2, final_seeds=2),
    compute=ComputeConfig(workers=1, population=1),
)

# Wall-clock times differ between two runs of the same search.
_TIMES = ("seconds", "seconds_by_stage", "seconds_per_training", "fps", "time_elapsed")


def outputs(folder: Path) -> dict[str, object]:
    """Return everything a search found, without its wall-clock times."""
    result = json.loads((folder / "result.json").read_text())
    return {
        "schedule": (folder / SCHEDULE_NAME).read_bytes(),
        "policy": (folder / POLICY_NAME / "policy.safetensors").read_bytes(),
        "result": without_times(result),
        "metrics": metrics(folder),
    }


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `metrics.jsonl` about episodes and losses, without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [without_times(json.loads(line)) for line in lines]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_times(item)
            for key, item in value.items()
            if key.rpartition("/")[2] not in _TIMES
        }
    return [without_times(item) for item in value] if isinstance(value, list) else value
