"""Every mistake of a user is one line on standard error, code 2, and nothing written."""

import re
from pathlib import Path

import pytest

from tests.cli.bad_commands import OUTPUTS, WORDS
from tests.cli.bad_configs import CONFIGS
from tests.cli.bad_flags import FLAGS
from tests.cli.bad_folders import DATA, FOLDERS
from tests.cli.bad_networks import LABELS, NETWORKS
from tests.cli.bad_schedules import SCHEDULES
from tests.cli.mistake import BadInput
from tests.cli.running import RunCommand, listing

BAD_INPUTS = [*CONFIGS, *FLAGS, *WORDS, *SCHEDULES, *DATA, *FOLDERS, *NETWORKS, *LABELS, *OUTPUTS]


def _prepare(folder: Path, bad: BadInput) -> None:
    for name, content in bad.files.items():
        path = folder / name
        if content is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if bad.prepare is not None:
        bad.prepare(folder)


def _pattern(message: str) -> str:
    return ".*".join(re.escape(part) for part in message.split("..."))


def test_there_are_many_and_none_twice() -> None:
    assert len({bad.name for bad in BAD_INPUTS}) == len(BAD_INPUTS) > 100


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
def test_a_mistake_is_one_line(
    bad: BadInput, folder: Path, cache: Path, run_command: RunCommand
) -> None:
    _prepare(folder, bad)
    before = listing(folder)
    outcome = run_command(*bad.argv.split())
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert re.fullmatch(_pattern(bad.message) + "\n", outcome.err), outcome.err
    assert "expected" in outcome.err
    assert "Traceback" not in outcome.err
    assert listing(folder) == before
    # Decoding is guarded by a lock, which stays.
    assert not any(listing(cache).values())
