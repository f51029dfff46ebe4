"""Workers that are actors of Ray, on this machine or on the nodes of a cluster (extra ``ray``)."""

import atexit
import contextlib
import functools
import importlib
import logging
import os
import queue
import secrets
import signal
import threading
from pathlib import Path
from typing import Any

from automix.configuration.task import ComputeConfig
from automix.errors import ConfigError, MissingExtraError
from automix.executors.ray_folder import end_processes, make_folder
from automix.executors.supervisor import Event, EventKind, Events
from automix.executors.units import Call, Maker

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
# Of a private cluster. By default, Ray's processes wait 30 s for each other, which is short on a
# busy machine, and workers are 15 nicer than the command: others would leave them no time.
_SETTINGS = {
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_niceness": "0",
}
_TOKEN_FILE = Path(".ray", "auth_token")
_NAMESPACE = "automix"
_ATTEMPTS = 5
_NUM_LINES = 8
_NUM_BYTES = 4_000
# To ask the node of a lost worker how it ended; the node may be lost as well.
_SECONDS_TO_ASK = 10.0
_SECONDS_TO_END = 1.0
_LOG = logging.getLogger(__name__)


def connect(compute: ComputeConfig) -> Any:
    """Return Ray, connected to the cluster of ``compute`` or to a private one on this machine.

    A private cluster listens on the loopback interface, has no dashboard, and ends with this
    process. Token authentication is on, unless the environment says otherwise.

    Raises:
        MissingExtraError: Ray is not installed.
        ConfigError: the cluster cannot be joined.
    """
    address = compute.address or os.environ.get("RAY_ADDRESS") or None
    _set_environment(is_private=address is None)
    ray = _imported()
    if ray.is_initialized():
        return ray
    options: dict[str, Any] = {
        "namespace": _NAMESPACE,
        "logging_level": logging.ERROR,
        # What a lost worker wrote last is asked for.
        "log_to_driver": False,
    }
    if address is None:
        # Before Ray's own end is registered: the last that was registered comes first.
        folder = make_folder()
        options |= {"address": "local", "include_dashboard": False, "_temp_dir": folder}
    else:
        options["address"] = address
    _LOG.info("Ray: %s", "a private cluster on this machine" if address is None else address)
    atexit.register(ray.shutdown)
    # Ray gives a node 30 s to start, which a busy machine does not always do.
    for remaining in reversed(range(_ATTEMPTS if address is None else 1)):
        try:
            ray.init(**options)
            break
        except Exception as error:
            ray.shutdown()
            if address is None:
                # Else the next node has the processes of this one beside it.
                end_processes(folder)
            if not remaining:
                raise ConfigError(
                    "compute.address: expected a Ray cluster that can be joined, got "
                    f"{address or 'none'}: {_first_line(error)}"
                ) from error
    return ray


def _set_environment(*, is_private: bool) -> None:
    """Turn on token authentication; a private cluster has a token of its own."""
    # Read when Ray is imported.
    os.environ.setdefault(_MODE, "token")
    if is_private:
        # As Ray does on macOS: nothing listens beyond the loopback interface.
        os.environ.setdefault(_CLUSTERS, "0")
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        is_kept = _TOKEN in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
        if not is_kept and not (Path.home() / _TOKEN_FILE).exists():
            # Not Ray's own, a file that other users of this machine may read.
            os.environ[_TOKEN] = secrets.token_hex(32)


def _imported() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise MissingExtraError(
            "compute.executor: expected the package ray for executor ray, got none; install it "
            "with: pip install 'automix[ray]'"
        ) from None


def capacity(compute: ComputeConfig) -> int:
    """Return how many workers the cluster has room for.

    Raises:
        ConfigError: for none.
    """
    total = connect(compute).cluster_resources()
    cpus, gpus = total.get("CPU", 0.0), gpus_of(compute)
    count = int(cpus // compute.threads)
    if gpus:
        count = min(count, int(total.get("GPU", 0.0) / gpus))
    if count < 1:
        raise ConfigError(
            f"compute: expected a worker that fits on the Ray cluster ({cpus:g} CPUs, "
            f"{total.get('GPU', 0.0):g} GPUs), got threads {compute.threads}, gpus {gpus:g}"
        )
    return count


def gpus_of(compute: ComputeConfig) -> float:
    """Return the GPUs of a worker: what ``compute`` says, else one where the cluster has any."""
    if compute.gpus is not None:
        return compute.gpus
    return float(connect(compute).cluster_resources().get("GPU", 0.0) > 0)


class RayWorker:
    """An actor that does one call after the other, and answers while it does."""

    def __init__(
        self,
        number: int,
        maker: Maker,
        events: Events,
        *,
        compute: ComputeConfig,
        heartbeat: float,
        is_replacement: bool,
    ) -> None:
        """Ask for an actor.

        One that replaces a lost one reserves no CPU: where a node is gone, two workers share a core
        rather than that one waits for ever.
        """
        ray = connect(compute)
        options = {
            "num_cpus": 0 if is_replacement else compute.threads,
            "num_gpus": gpus_of(compute),
            "max_restarts": 0,
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
        }
        self._actor = _actor_class().options(**options).remote()
        self._state = _State(name=f"Ray worker {number}")
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=_Conversation(ray, number, self._actor, events, self._state).hold,
            args=(maker, self._calls, heartbeat),
            daemon=True,
        )
        self._thread.start()

    @property
    def name(self) -> str:
        """Name of the worker for the log, with its process and node once they are known."""
        return self._state.name

    def start(self, call: Call) -> None:
        """Begin a call."""
        self._calls.put(call)

    def terminate(self) -> None:
        """Do nothing: an actor cannot be asked in the middle of a call."""

    def kill(self, *, patience: float = 0.0) -> None:
        """End the actor at once."""
        ray = importlib.import_module("ray")
        self._calls.put(None)
        # At the end of Python, Ray may be gone already, and its actors with it.
        if not ray.is_initialized():
            return
        with contextlib.suppress(Exception):
            ray.kill(self._actor, no_restart=True)
        # That of a stopped process ends only with `last_lines`.
        self._thread.join(_SECONDS_TO_END)

    def obituary(self) -> str:
        """Return how it ended."""
        return self._state.reason or "ended"

    def last_lines(self) -> list[str]:
        """Return the last lines that it wrote, if its node still knows.

        Only here, because asking takes another process: workers that are not lost end without it.
        """
        return self._state.asked_lines(importlib.import_module("ray"))


class _State:
    """Place of an actor, and its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.place: tuple[int, str, str] | None = None  # process, node, file of its messages
        self.reason = ""

    def settle(self, place: tuple[int, str, str]) -> None:
        self.place = place
        self.name = f"{self.name} (process {place[0]} on node {place[1][:8]})"

    def asked_lines(self, ray: Any) -> list[str]:
        """Let the node of a lost actor say what it wrote, and end it if it is stopped."""
        if self.place is None:
            return []
        process, node, path = self.place
        strategy = importlib.import_module("ray.util.scheduling_strategies")
        here = strategy.NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        last_words = ray.remote(num_cpus=0, max_retries=0)(_last_words)
        with contextlib.suppress(Exception):
            answer = last_words.options(scheduling_strategy=here).remote(process, path)
            lines: list[str] = ray.get(answer, timeout=_SECONDS_TO_ASK)
            return lines
        return []


def _last_words(process: int, path: str) -> list[str]:
    """Return what a process of this node wrote last; end it if it is stopped."""
    with contextlib.suppress(OSError, IndexError):
        if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t"):
            os.kill(process, signal.SIGKILL)
    with contextlib.suppress(OSError), Path(path).open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _NUM_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
        # Ray's own marks begin with colons.
        return [line.strip() for line in lines if line.strip() and line[:1] != ":"][-_NUM_LINES:]
    return []


@functools.cache
def _actor_class() -> Any:
    ray = importlib.import_module("ray")

    class Actor:
        """The object that a worker holds, and the thread that uses it.

        Ray gives the methods of the default group one thread, and `beat` another.
        """

        def __init__(self) -> None:
            self._held: Any = None

        def make(self, maker: Maker, folder: str) -> None:
            # Standard output is for results of the command: workers have none.
            os.dup2(2, 1)
            # Relative paths are those of the command, where its folders are shared.
            with contextlib.suppress(OSError):
                os.chdir(folder)
            self._held = maker()

        def do(self, function: Any, arguments: tuple[Any, ...]) -> tuple[str, Any]:
            # Returned, not raised: Ray would wrap it in an exception of its own.
            try:
                return "result", function(self._held, *arguments)
            except Exception as error:
                return "error", error

        @ray.method(concurrency_group="beat")  # type: ignore[untyped-decorator]
        def beat(self) -> tuple[int, str, str]:
            node = ray.get_runtime_context().get_node_id()
            path = f"/proc/{os.getpid()}/fd/2"
            return os.getpid(), node, str(Path(path).resolve()) if Path(path).exists() else ""

    return ray.remote(concurrency_groups={"beat": 1})(Actor)


class _Conversation:
    """Calls of one actor, and what it says of them."""

    def __init__(self, ray: Any, number: int, actor: Any, events: Events, state: _State) -> None:
        self._ray, self._number, self._actor = ray, number, actor
        self._events, self._state = events, state

    def hold(self, maker: Maker, calls: "queue.SimpleQueue[Call | None]", heartbeat: float) -> None:
        """Send calls, and put what comes back into the events, until the actor ends."""
        is_made = False
        while (call := calls.get()) is not None:
            try:
                if not is_made:
                    self._awaited(self._actor.make.remote(maker, str(Path.cwd())), heartbeat)
                    is_made = True
                self._say("ready")
                self._say(*self._awaited(self._actor.do.remote(*call), heartbeat))
            except self._ray.exceptions.RayTaskError as error:
                # What cannot be sent, or the maker's own error.
                self._say("error", error.cause or RuntimeError(str(error)))
            except Exception as error:
                self._state.reason = _reason(error)
                self._say("lost")
                return

    def _awaited(self, answer: Any, heartbeat: float) -> Any:
        """Return an answer of the actor; until it comes, ask whether the actor lives."""
        ray, pulse = self._ray, self._actor.beat.remote()
        while True:
            ready, _ = ray.wait([answer, pulse], num_returns=1)
            if pulse in ready:
                place = ray.get(pulse)
                if self._state.place is None:
                    self._state.settle(place)
                self._say("beat")
            if answer in ready or ray.wait([answer], timeout=heartbeat)[0]:
                return ray.get(answer)
            pulse = self._actor.beat.remote()

    def _say(self, kind: EventKind, value: Any = None) -> None:
        self._events.put(Event(self._number, kind, value))


def _reason(error: Exception) -> str:
    """Return in one line how an actor ended."""
    text = str(error)
    detail = next((line for line in text.splitlines() if "exit detail:" in line), "")
    # After it come guesses, the same for all.
    detail = detail.partition("exit detail:")[2].partition(" Some common causes")[0]
    return (detail or _first_line(error)).strip()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
