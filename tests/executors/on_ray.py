"""Scenarios on Ray, each in a process of its own: ``python -m tests.executors.on_ray NAME FOLDER``.

Ray starts processes and threads that outlive a test, and reads the environment when it is imported.
"""

import functools
import importlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from agents.config import AgentConfig
from automix.configuration.task import ComputeConfig
from automix.executors import ray_actors
from automix.executors.choose import Kind, make_executor
from automix.executors.ray_folder import end_processes, make_folder
from automix.executors.units import Executor, Unit, unit_name
from automix.experiments.commands import COMMANDS
from automix.experiments.common.run_logs import Journal
from automix.experiments.config import SearchConfig
from automix.experiments.search.learning import LearningLog
from automix.experiments.search.run import search
from automix.experiments.sweep.cell import CellState
from automix.experiments.sweep.run import load_sweep, save_table
from automix.experiments.sweep.scheduler import run_sweep
from tests.cli.sweeps import TINY_TASK, write_sweep
from tests.executors import toy
from tests.experiments.tiny_search import TINY

_TRIES = 8


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


class Nodes:
    """A cluster of three nodes, beside its head, on this machine; one of them is lost."""

    def __init__(self) -> None:
        os.environ |= ray_actors._SETTINGS | {"RAY_AUTH_MODE": "disabled"}
        cluster = importlib.import_module("ray.cluster_utils").Cluster
        folder = make_folder()
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
        start_head = functools.partial(cluster, initialize_head=True, head_node_args=head)
        self._cluster = self._patiently(start_head, lambda: end_processes(folder))
        add = functools.partial(self._cluster.add_node, num_cpus=1)
        self._nodes = [self._patiently(add, lambda: None) for _ in range(3)]
        self.address = self._cluster.address

    def _patiently(self, start: Callable[[], Any], clean: Callable[[], None]) -> Any:
        """Start a node, which Ray gives 30 s; a busy machine needs several tries."""
        for _ in range(_TRIES):
            try:
                return start()
            except Exception as error:
                sys.stderr.write(f"no node: {error}\n")
                clean()
        raise RuntimeError(f"expected a node of Ray to start, got {_TRIES} that did not")

    def lose_one(self) -> None:
        """Kill the processes of a node on which an actor lives."""
        from ray._private.state import actors  # noqa: PLC0415

        alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
        [node] = [node for node in self._nodes if node.node_id == alive[-1]["Address"]["NodeID"]]
        self._cluster.remove_node(node, allow_graceful=False)
        sys.stderr.write(f"lost the node {node.node_id[:8]}\n")


def rollouts_on_nodes(folder: Path) -> None:
    """Search on three nodes, and lose one while episodes are played."""
    nodes, add = Nodes(), LearningLog.on_episode

    def add_and_lose(log: LearningLog, episode: Any) -> None:
        add(log, episode)
        if episode.number == 1:
            nodes.lose_one()

    LearningLog.on_episode = add_and_lose  # type: ignore[assignment,method-assign]
    search(search_config("ray", address=nodes.address), folder)


def selection_on_nodes(folder: Path) -> None:
    """Search on three nodes, and lose one after the first training runs of the race."""
    nodes, add = Nodes(), Journal.add

    def add_and_lose(journal: Journal, *arguments: Any) -> None:
        add(journal, *arguments)
        if (folder / "race.jsonl").exists():
            Journal.add = add  # type: ignore[method-assign]
            nodes.lose_one()

    Journal.add = add_and_lose  # type: ignore[assignment,method-assign]
    search(search_config("ray", address=nodes.address), folder)


def sweep_on_nodes(folder: Path) -> None:
    """Run a sweep on three nodes, and lose one when the first cell is done."""
    nodes = Nodes()
    path = write_sweep(folder.with_suffix(".yaml"), TINY_TASK, seeds=3)
    sweep = load_sweep(path, folder, COMMANDS)
    lost: list[str] = []

    def lose(cell: Any, state: CellState) -> None:
        if not lost:
            lost.append(cell.identifier)
            nodes.lose_one()

    outcome = run_sweep(
        sweep.cells,
        folder,
        resolve_name(sweep.experiment.run),
        compute=ComputeConfig(executor="ray", address=nodes.address),
        on_done=lose,
    )
    assert not outcome.failed
    save_table(sweep)


SCENARIOS = {
    "units": units,
    "search": whole_search,
    "killed": killed_search,
    "rollouts": rollouts_on_nodes,
    "selection": selection_on_nodes,
    "sweep": sweep_on_nodes,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    began = time.monotonic()
    SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
    sys.stderr.write(f"{sys.argv[1]}: {time.monotonic() - began:.0f} s\n")
