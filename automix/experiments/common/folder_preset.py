"""Settings for a folder of images that is given in place of a file, such as `search photos/`.

Free of torch until the images are counted: whatever else is wrong is said before.
"""

import logging
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from automix.configuration.arguments import merged
from automix.configuration.base import read_yaml
from automix.configuration.data import DataSource
from automix.configuration.task import TaskConfig
from automix.data.folder import list_folder

if TYPE_CHECKING:
    from automix.data.folder import FolderListing

_LOG = logging.getLogger(__name__)
_DEFAULT = "quick"

# So many passes that the small network knows the images by heart, without which mixing has nothing
# to help against, within runs of a few seconds.
_EPOCHS = 60
_FEWEST_EPOCHS = 20
_FEWEST_STEPS = 160
_MOST_STEPS = 600
_REPLAY_SELECTION = 0.1


def task_of_folder(
    folder: Path, values: Mapping[str, Any], preset: str | None = None
) -> dict[str, Any]:
    """Return what ``values``, from flags, leave open for the task of images in ``folder``.

    Args:
        folder: of the images.
        values: settings that come before those of the preset.
        preset: quick, medium or best; None: quick.

    Raises:
        DataError: the folder has another layout, or a class too few images.
    """
    task = _settings(preset)["task"]
    labels = values.get("task", {}).get("data", {}).get("labels")
    listing = None if labels else list_folder(folder.expanduser())
    if labels:
        task["trainer"]["loss"] = "binary_cross_entropy"
    images = {"data": {"source": DataSource.FOLDER, "path": str(folder)}}
    try:
        chosen = TaskConfig.from_plain(merged(merged(task, dict(values.get("task", {}))), images))
    except (ValidationError, TypeError, ValueError):
        # Whoever validates all of the configuration says it better.
        return {"task": task}
    steps_per_epoch = chosen.trainer.steps_per_epoch(_num_training_images(chosen, listing))
    steps = min(max(_EPOCHS * steps_per_epoch, _FEWEST_STEPS), _MOST_STEPS)
    task["trainer"]["epochs"] = max(_FEWEST_EPOCHS, math.ceil(steps / steps_per_epoch))
    return {"task": task}


def replay_of_folder(
    folder: Path, values: Mapping[str, Any], preset: str | None = None
) -> dict[str, Any]:
    """Return the task as `task_of_folder` does, with what a search holds out for training.

    A schedule is chosen already, so no image need decide about one; a tenth stays apart for the
    temperature and the best weights. The test images are those that a search never sees.
    """
    parts = {"task": {"data": {"reward_size": 0, "selection_size": _REPLAY_SELECTION}}}
    return merged(task_of_folder(folder, merged(parts, dict(values)), preset), parts)


def search_of_folder(
    folder: Path, values: Mapping[str, Any], preset: str | None = None
) -> dict[str, Any]:
    """Return the task as `task_of_folder` does, and a budget unless ``values`` have one."""
    has_budget = {"runs", "minutes"}.intersection(values)
    budget = {} if has_budget else {"minutes": _settings(preset)["minutes"]}
    return task_of_folder(folder, values, preset) | budget


def _settings(preset: str | None) -> dict[str, Any]:
    """Return the settings of a preset: of a task, and the minutes of a search."""
    file = resources.files("automix") / f"presets/{preset or _DEFAULT}.yaml"
    with resources.as_file(file) as path:
        settings: Any = read_yaml(path)
    return dict(settings)


def _num_training_images(task: TaskConfig, listing: "FolderListing | None") -> int:
    if listing is None:
        from automix.data.sources.label_file import (  # noqa: PLC0415
            parts_of_labels,
            read_label_file,
        )

        assert task.data.labels is not None
        rows = read_label_file(task.data.labels.expanduser()).rows
        return len(parts_of_labels(rows, task.data)["train"])
    # Takes seconds: it imports torch. On a busy machine nobody knows what is happening until then.
    _LOG.info("%s: %d images", listing.root, sum(map(len, listing.parts.values())))
    from automix.data.pools import assign  # noqa: PLC0415

    val = listing.labels("val") if "val" in listing.parts else None
    assignment = assign(listing.labels("train"), val, task.data, has_test=listing.has_test)
    return len(assignment.from_train["train"])
