"""Sections of the report about images: replayed classifiers, and what operators do to images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from automix.configuration.task import ReplayConfig, TaskConfig
from automix.errors import CheckpointError, DataError
from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.evaluation.statistics import Interval
from automix.experiments.common.mixed_picture import PICTURE_NAME, SPECTRAL, spread_over_classes
from automix.experiments.common.saved_classifier import load_classifier
from automix.experiments.config import SearchConfig
from automix.experiments.report.finished_runs import FinishedRun, titled
from automix.experiments.search.run import SCHEDULE_NAME
from automix.experiments.show import make_sheet
from automix.models.pretrained import images_of
from automix.operator_info import Operator, SaliencyKind
from automix.readers import read_bytes
from automix.reporting.mixed_rows import MixedRows
from automix.reporting.page import Section
from automix.reporting.tables import Column, Direction, Table, interval_of
from automix.schedule import Decision, Schedule
from automix.training.trainer import build_trainer, load_search_data

_SHEET_ROWS = 6
_LARGEST_PICTURE = 2_000_000


def replay_section(replays: Sequence[FinishedRun]) -> Section:
    """Return the results of replayed training runs."""
    rows = tuple(
        (
            run.path.name,
            _score(run, "accuracy"),
            # Without selection images its temperature would be that of the test images.
            _score(run, "calibrated_nll") if run.result.get("selection") else None,
            _score(run, "nll"),
            run.result["steps"],
        )
        for run in replays
    )
    table = Table(
        name="replay",
        title="Replayed training runs",
        columns=(
            Column(name="run"),
            Column(name="test accuracy", better=Direction.HIGHER, digits=4),
            Column(name="calibrated NLL", unit="nats", better=Direction.LOWER, digits=4),
            Column(name="NLL", unit="nats", better=Direction.LOWER, digits=4),
            Column(name="steps", digits=9),
        ),
        rows=rows,
        links=tuple(run.link for run in replays),
        caption="One training run each: one seed says little. 95% intervals over the test images. "
        f"Calibrated NLL: {TEMPERATURE_FROM}; not given without such images.",
    )
    return Section(title="Replay", blocks=(table,))


def _score(run: FinishedRun, metric: str) -> Interval | float:
    """Return a score on the test images, with its interval where there is one."""
    interval = (run.result.get("test_intervals") or {}).get(metric)
    value: float = run.result["test"][metric]
    return interval_of(interval) or value


def mixed_rows(run: FinishedRun) -> MixedRows | None:
    """Return the picture that a search or replay kept of its own mixed images, if it has one.

    Raises:
        CheckpointError: the file is missing, or holds no such picture.
    """
    return read_picture(
        run.path / PICTURE_NAME,
        run.result.get("picture"),
        name=f"{run.slug}-mixed",
        title=titled("What the schedule does to these images", run),
    )


def read_picture(
    path: Path, picture: Mapping[str, Any] | None, *, name: str, title: str
) -> MixedRows | None:
    """Return a picture in the folder of a run, of which the result says ``picture``; as above."""
    if picture is None:
        return None
    caption = "Training images of the run, mixed as its schedule says."
    labels = picture["rows"]
    try:
        content = read_bytes(path, limit=_LARGEST_PICTURE)
        return MixedRows.read(content, name=name, title=title, labels=labels, caption=caption)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def sheet_section(run: FinishedRun, replays: Sequence[FinishedRun]) -> Section:
    """Return a contact sheet per operator, on training images of the search."""
    config: SearchConfig = run.config(SearchConfig)
    try:
        data = load_search_data(images_of(config.task))
    except DataError as error:
        # The runs may have come from another machine, without the images.
        return Section(title="What the operators do", text=(f"Not shown: {error}.",))
    indices = spread_over_classes(data.train.labels, _SHEET_ROWS, seed=config.seed)
    images, labels = data.train.take(indices)
    saliency, origin = _saliency(config.task, replays, images, labels)
    # At the strength that was selected, where the operator was; else at its default.
    schedule = Schedule.load(run.path / SCHEDULE_NAME)
    decisions = {
        decision.operator: decision
        for segment in schedule.segments
        for decision in segment.mixture.decisions
    }
    sheets = [
        make_sheet(
            decisions.get(operator, Decision(operator=operator)),
            images,
            labels,
            class_names=data.class_names,
            saliency_BHW=saliency,
            seed=config.seed,
        )
        # What ships may use operators that the environment lacks.
        for operator in dict.fromkeys((*config.environment.operators, *schedule.operators))
        if operator is not Operator.NONE
    ]
    return Section(title="What the operators do", text=(origin,), blocks=tuple(sheets))


def _saliency(
    task: TaskConfig, replays: Sequence[FinishedRun], images: Tensor, labels: Tensor
) -> tuple[Tensor | None, str]:
    """Return maps of the classifier of a replay of the same task, if there is one, in words too."""
    kind = task.saliency.source.value.replace("_", " ")
    if task.model.factory is not None:
        # A folder of runs may be somebody else's, and a factory is code.
        text = f"Saliency: {SPECTRAL}; training reads the {kind}, and a report builds no network"
        return None, f"{text} of a factory."
    for run in replays:
        config: ReplayConfig = run.config(ReplayConfig)
        if (config.task.data, config.task.model) == (task.data, task.model):
            model, facts = load_classifier(run.path)
            # Its own weights: those that the configuration may name are not looked for.
            network = task.model.model_copy(update={"weights": None})
            if facts.model != network:
                raise CheckpointError(f"{run.path}: expected the classifier of its configuration")
            plain = task.model_copy(update={"model": network})
            trainer = build_trainer(plain, load_search_data(images_of(task)), seed=config.seed)
            trainer.model.load_state_dict(model.state_dict())
            # With the running statistics: six images are too few for those of a batch.
            trainer.model.eval()
            maps = trainer.saliency_of(images, labels).cpu()
            return maps, f"Saliency: {kind}, as in training, of a replayed classifier."
    if task.saliency.source is SaliencyKind.SPECTRAL_RESIDUAL:
        return None, f"Saliency: {kind}, as in training."
    return None, (
        f"Saliency: {SPECTRAL}; training reads the {kind}, and there is no replayed classifier "
        "of this task to take it of."
    )
