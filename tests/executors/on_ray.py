"""Scenarios on Ray, each in a process of its own: ``python -m tests.executors.on_ray NAME FOLDER``.

Ray starts processes and threads that outlive a test, and reads the environment when it is imported.
"""

import functools
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch

from agents.config import AgentConfig
from automix.configuration.task import ComputeConfig
from automix.executors.choose import Kind, make_executor
from automix.executors.units import Executor, Unit, unit_name
from automix.experiments.config import SearchConfig
from automix.experiments.search.learning import LearningLog
from automix.experiments.search.run import search
from tests.executors import toy
from tests.experiments.tiny_search import TINY


def search_config(executor: Kind, **compute: Any) -> SearchConfig:
    """Return the tiny search in groups of two runs at once, in every stage."""
    return TINY.model_copy(
        update={
            "agent": AgentConfig(episodes=8, episodes_per_rollout=4, num_environments=4),
            "compute": ComputeConfig(workers=2, population=2, executor=executor, **compute),
        }
    )


def outcomes(executor: Executor, folder: Path, fates: dict[int, str]) -> list[int]:
    units = [
        Unit(name=unit_name(str(value)), kind="meet", call=(toy.meet, (folder, value, fates)))
        for value in range(6)
    ]
    for unit in units:
        executor.submit(unit)
    return [executor.outcome(unit.name) for unit in units]


def units(folder: Path) -> None:
    """Do units whose workers die, hang or answer what cannot be sent."""
    executor = make_executor(
        [functools.partial(toy.Held, seat) for seat in range(2)],
        ComputeConfig(executor="ray", timeout=10.0),
        kind="ray",
        method="",
    )
    folder.mkdir()
    assert outcomes(executor, folder, {1: "dies", 4: "hangs"}) == [0, 1, 4, 9, 16, 25]
    assert {loss.unit for loss in executor.lost} == {unit_name("1"), unit_name("4")}
    executor.stop()


def whole_search(folder: Path) -> None:
    """Search on a private cluster."""
    search(search_config("ray"), folder)


def killed_search(folder: Path) -> None:
    """Search on a private cluster, and kill an actor in each stage."""
    add = LearningLog.on_episode

    def add_and_kill(log: LearningLog, episode: Any) -> None:
        add(log, episode)
        if episode.number in (0, 5):
            kill_an_actor()

    LearningLog.on_episode = add_and_kill  # type: ignore[assignment,method-assign]
    search(search_config("ray"), folder)


def kill_an_actor() -> None:
    """Kill a worker of Ray on this machine that is an actor."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            name = path.read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::Actor"):
            os.kill(int(path.parent.name), signal.SIGKILL)
            return
    raise AssertionError("no actor of Ray is running")


def search_on_nodes(folder: Path) -> None:
    """Search on a cluster of three nodes, and take one away while episodes are played."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    add = LearningLog.on_episode

    def add_and_remove(log: LearningLog, episode: Any) -> None:
        add(log, episode)
        if episode.number == 1:
            threading.Thread(target=cluster.remove_node, args=(nodes[0],)).start()

    LearningLog.on_episode = add_and_remove  # type: ignore[assignment,method-assign]
    search(search_config("ray", address=cluster.address), folder)


SCENARIOS = {
    "units": units,
    "search": whole_search,
    "killed": killed_search,
    "nodes": search_on_nodes,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    began = time.monotonic()
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
    sys.stderr.write(f"{sys.argv[1]}: {time.monotonic() - began:.0f} s\n")
