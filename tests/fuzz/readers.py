"""Every reader of files that may come from others, as a function of the bytes of one file.

A reader takes the bytes, or refuses them with an `AutoMixError`, which the command line prints as
one line. Anything else that it raises is a fault.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from gymnasium import spaces

from agents.learned import FACTS_NAME, WEIGHTS_NAME, LearnedPolicy, make_network
from automix.configuration.task import ModelConfig, ReplayConfig
from automix.data.sources.annotations import NamedImages, read_boxes, read_groups
from automix.data.sources.decode import common_format, read_image, refusing_bombs
from automix.errors import AutoMixError
from automix.experiments.common import saved_classifier
from automix.experiments.common.kept_files import SUMS_NAME, check_whole
from automix.experiments.common.run_folder import RunFolder, finished_result
from automix.experiments.common.run_logs import Journal
from automix.experiments.compare.schedule_specs import build_schedule
from automix.experiments.config import CardConfig, SearchConfig
from automix.experiments.report.card import make_card
from automix.experiments.report.finished_runs import FinishedRun, FinishedSweep
from automix.experiments.report.run import write_report
from automix.experiments.sweep.cell import SweepConfig
from automix.experiments.sweep.table import TABLE_NAME
from automix.files import read_checkpoint, sha256_of
from automix.models.build import build_model
from automix.operator_info import Operator
from automix.reporting.sections import sweep_section
from automix.schedule import Decision, Schedule, constant_schedule
from envs.config import EnvironmentConfig

CORPUS = Path(__file__).with_name("corpus")
_MAGIC = b"AUTOMIX1"
_LONGEST_MESSAGE = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A reader of one file, in a folder that holds whatever else it needs."""

    read: Callable[[Path], object]  # takes the path of the file
    name: str = "file"  # of the file
    wrap: Callable[[bytes], bytes] = bytes  # what is put around the bytes, such as a right checksum


def check(reader: Reader, content: bytes, folder: Path) -> bool:
    """Read ``content``; return whether it was taken. Raises what is a fault."""
    path = folder / reader.name
    path.write_bytes(reader.wrap(content))
    try:
        reader.read(path)
    except AutoMixError as error:
        message = str(error)
    else:
        return True
    assert len(message) < _LONGEST_MESSAGE
    return False


def _with_sum(body: bytes) -> bytes:
    """Return a checkpoint whose sum is right, whatever its body."""
    return _MAGIC + hashlib.sha256(body).digest() + body


def _policy(path: Path) -> object:
    """Read a policy, of which the file is one part and the other is right."""
    facts, weights = _policy_files()
    for name, content in ((FACTS_NAME, facts), (WEIGHTS_NAME, weights)):
        if path.name != name:
            (path.parent / name).write_bytes(content)
    return LearnedPolicy.load(path.parent)


@cache
def _policy_files() -> tuple[bytes, bytes]:
    network = make_network(
        spaces.Box(-1.0, 1.0, (2,)), spaces.MultiDiscrete([2, 3]), hidden_sizes=(2,)
    )
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    facts = (CORPUS / "policy_facts" / "small.json").read_bytes()
    return facts, safetensors.torch.save(weights)


def _classifier(path: Path) -> object:
    """Read a classifier whose weights are right."""
    (path.parent / saved_classifier.WEIGHTS_NAME).write_bytes(_classifier_weights())
    return saved_classifier.load_classifier(path.parent)


@cache
def _classifier_weights() -> bytes:
    model = build_model(
        ModelConfig(name="small_cnn", width=2),
        num_classes=2,
        channels=1,
        generator=torch.Generator().manual_seed(0),
    )
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    return safetensors.torch.save(weights)


def _finished_run(path: Path) -> object:
    finished_result(path.parent)
    return FinishedRun(path.parent)


def _environment(path: Path) -> object:
    (path.parent / "result.json").write_bytes((CORPUS / "result" / "replay.json").read_bytes())
    return FinishedRun(path.parent).source


def _sums(path: Path) -> None:
    check_whole(path.parent)


def _with_sum_of_files(content: bytes) -> bytes:
    """Return a file of sums whose own sum is right, where it is JSON."""
    try:
        files = json.loads(content)["files"]
        right = sha256_of(json.dumps(files, sort_keys=True).encode())
        return json.dumps({"files": files, "sum": right}).encode()
    except (ValueError, TypeError, LookupError, RecursionError):
        return content


def _run(path: Path) -> object:
    """Make a report and a card of a run whose other files are right."""
    config, schedule = ReplayConfig(), constant_schedule(Decision(operator=Operator.MIXUP))
    if path.name != "config.yaml":
        (path.parent / "config.yaml").write_text(config.to_yaml())
    (path.parent / "schedule.json").write_text(schedule.to_json())
    for name, folder in (
        ("result.json", "result/replay"),
        ("environment.json", "environment/small"),
    ):
        if path.name != name:
            (path.parent / name).write_bytes((CORPUS / f"{folder}.json").read_bytes())
    (path.parent / saved_classifier.WEIGHTS_NAME).write_bytes(_classifier_weights())
    make_card(path.parent, CardConfig())
    return write_report(path.parent)


def _table(path: Path) -> object:
    sweep = FinishedSweep.read(path.parent, "sweep")
    return sweep and (sweep.schedules(), sweep_section(sweep.table, "sweep", sweep.source, {}))


def _metrics(path: Path) -> object:
    run = RunFolder(path.parent, ReplayConfig())
    run.restore_metrics('{"step": 1}\n')
    assert path.read_bytes() == b'{"step": 1}\n'
    return run


def _image(path: Path) -> object:
    image_format = common_format([path], None)
    # Headers may claim any size; pixels of these are few.
    if image_format.height * image_format.width >= 1e6:
        return 0
    # As around every loop over files: damaged metadata is no reason to warn.
    with refusing_bombs():
        return read_image(path, image_format)


def _description(path: Path) -> object:
    text = path.read_bytes().decode(errors="replace")
    # Names of files are tried elsewhere.
    kind, _, _ = text.partition(":")
    is_of_file = kind.startswith(("shuffled", "marginal")) or "/" in text or "\0" in text
    return None if is_of_file else build_schedule(text, EnvironmentConfig(), seed=0)


_IMAGES = NamedImages(names=tuple(map(str, range(4))), files={}, height=8, width=8)

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "schedule": Reader(read=Schedule.load, name="schedule.json"),
        "description": Reader(read=_description),
        "configuration": Reader(read=SearchConfig.from_yaml, name="config.yaml"),
        "sweep": Reader(read=SweepConfig.from_yaml, name="sweep.yaml"),
        "checkpoint": Reader(read=read_checkpoint, name="step-000000001.ckpt"),
        "checkpoint_body": Reader(read=read_checkpoint, name="right.ckpt", wrap=_with_sum),
        "policy_facts": Reader(read=_policy, name=FACTS_NAME),
        "policy_weights": Reader(read=_policy, name=WEIGHTS_NAME),
        "classifier_facts": Reader(read=_classifier, name=saved_classifier.FACTS_NAME),
        "result": Reader(read=_finished_run, name="result.json"),
        "environment": Reader(read=_environment, name="environment.json"),
        "journal": Reader(read=Journal, name="outcomes.jsonl"),
        "metrics": Reader(read=_metrics, name="metrics.jsonl"),
        "sums": Reader(read=_sums, name=SUMS_NAME),
        "sums_body": Reader(read=_sums, name=SUMS_NAME, wrap=_with_sum_of_files),
        "run_result": Reader(read=_run, name="result.json"),
        "run_environment": Reader(read=_run, name="environment.json"),
        "run_configuration": Reader(read=_run, name="config.yaml"),
        "table": Reader(read=_table, name=TABLE_NAME),
        "boxes_csv": Reader(read=lambda path: read_boxes(path, _IMAGES), name="boxes.csv"),
        "boxes_json": Reader(read=lambda path: read_boxes(path, _IMAGES), name="boxes.json"),
        "groups_csv": Reader(read=lambda path: read_groups(path, _IMAGES), name="groups.csv"),
        "groups_json": Reader(read=lambda path: read_groups(path, _IMAGES), name="groups.json"),
        "image": Reader(read=_image, name="image"),
    }
)
"""The readers by the name of their folder in the corpus."""


def corpus_of(name: str) -> list[bytes]:
    """Return the committed files of a reader, the valid ones and those that were faults once."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
