"""Claims on folders that several processes may want, on one host or on several that share them.

The lock of the operating system ends with its process and knows the processes of one host. Between
hosts it is what the file system makes of it, on some nothing. So a file names the host beside it,
and is renewed while the claim holds: another host waits until it no longer is.
"""

import contextlib
import json
import logging
import os
import platform
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock

from automix.files import write_json

OWNER_NAME = ".owner"
"""Who works in a folder: host and process."""

_RENEWED_SECONDS = 10.0
# Not renewed for so long, it is that of a host that is gone.
_STALE_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_LOG = logging.getLogger(__name__)


class ClaimedError(Exception):
    """The folder belongs to another process; the text says which, as far as it is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owner:
    """The content of the file."""

    machine: str  # of which the lock of the operating system knows all processes
    host: str
    process: int
    mark: str  # tells one claim from the next


class FolderClaim:
    """A claim of this process on a folder; it holds from `acquire` to `release`."""

    def __init__(self, folder: Path, *, lock_name: str) -> None:
        """Claim nothing yet. The lock has the name that it has had in such folders."""
        self._path = folder / OWNER_NAME
        self._lock = filelock.FileLock(folder / lock_name)
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None
        self._mark = ""

    def acquire(self, *, wait: bool = False) -> None:
        """Claim the folder; with ``wait``, wait a minute for a host that may be gone.

        Raises:
            ClaimedError: it belongs to another process.
        """
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ClaimedError("another process") from None
        try:
            self._take_over(wait=wait)
        except BaseException:
            self._lock.release()
            raise
        self._ended.clear()
        self._renewer = threading.Thread(target=self._renew, daemon=True)
        self._renewer.start()

    def release(self) -> None:
        """Give the folder back. Once more does no harm."""
        if self._renewer is not None:
            self._ended.set()
            self._renewer.join()
            self._renewer = None
            owner = _read(self._path)
            if owner is not None and owner.mark == self._mark:
                self._path.unlink(missing_ok=True)
        self._lock.release()

    def is_held(self) -> bool:
        """Return whether a process works in the folder at this moment."""
        # Asking is holding the lock for a moment; who begins then takes the folder for claimed.
        try:
            with self._lock.acquire(timeout=0):
                return self._elsewhere() is not None
        except filelock.Timeout:
            return True

    def _take_over(self, *, wait: bool) -> None:
        first = self._renewed_at()
        while (owner := self._elsewhere()) is not None:
            if not wait or self._renewed_at() != first:
                raise ClaimedError(f"process {owner.process} on {owner.host}")
            time.sleep(_LOOK_SECONDS)
        mine = _Owner(
            machine=_machine(),
            host=platform.node(),
            process=os.getpid(),
            mark=secrets.token_hex(8),
        )
        self._mark = mine.mark
        # By rename. Of two hosts that take over at once, the later one has it.
        write_json(self._path, asdict(mine))

    def _elsewhere(self) -> _Owner | None:
        """Return the owner on another machine; those of this one hold the lock."""
        owner = _read(self._path)
        if owner is None or owner.machine == _machine():
            return None
        return owner if self._now() - self._renewed_at() <= _STALE_SECONDS else None

    def _now(self) -> float:
        """Return the time of the file system, which is that of its server."""
        probe = self._path.with_name(f"{OWNER_NAME}.{secrets.token_hex(4)}.tmp")
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _renewed_at(self) -> float:
        try:
            return self._path.stat().st_mtime
        except OSError:
            return 0.0

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED_SECONDS):
            owner = _read(self._path)
            if owner is not None and owner.mark != self._mark:
                _LOG.warning(
                    "%s: expected a folder of this process, got one that process %d on %s took "
                    "over; end one of them",
                    *(self._path.parent, owner.process, owner.host),
                )
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)


def is_claimed(folder: Path, *, lock_name: str) -> bool:
    """Return whether a process works in a folder at this moment."""
    claim = FolderClaim(folder, lock_name=lock_name)
    return (folder / lock_name).exists() and claim.is_held()


def _machine() -> str:
    """Return what tells this machine from others, whose locks may not be seen here."""
    # Containers have names of their own, and the kernel of their machine.
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


def _read(path: Path) -> _Owner | None:
    """Return the owner that a file names; None where there is none, or a damaged one."""
    try:
        values = json.loads(path.read_bytes()[:4_000])
        return _Owner(
            machine=str(values["machine"]),
            host=str(values["host"]),
            process=int(values["process"]),
            mark=str(values["mark"]),
        )
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
