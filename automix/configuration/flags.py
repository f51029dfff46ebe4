"""Flags that no file sets: where results go, dry runs, presets. Free of torch and Gymnasium."""

from pathlib import Path
from typing import Literal

from automix.configuration.base import Config

PresetName = Literal["quick", "medium", "best"]


class RunFlags(Config):
    """Flags of commands that write a run folder."""

    output: Path | None = None
    """Folder of the run. Default: a folder in runs/ named after the configuration. An interrupted
    run in it is resumed, a finished one is left alone."""

    dry_run: bool = False
    """Print the training runs and the predicted time, and exit."""


class PresetFlags(Config):
    """Flags of commands that take a folder of images."""

    preset: PresetName | None = None
    """With a folder and without a file: settings for its images, and the time of a search. quick:
    32 pixels and 10 minutes; medium: 48 pixels, a network twice as wide, an hour; best: 64 pixels,
    a ResNet-20, eight hours. Default: quick."""


class FolderFlags(RunFlags, PresetFlags):
    """Flags of commands that take a folder of images and write a run folder."""


class ReplayFlags(FolderFlags):
    """Flags of `automix replay`."""

    policy: Path | None = None
    """Instead of a schedule: `default`, the policy that ships, or the folder of a search or of
    `automix pretrain`. The policy decides before every segment, from what it observes of this
    training run. The reward split that it observes is not trained on. Its decisions are written to
    schedule.json."""

    resume: Path | None = None
    """Instead of everything else: folder of an interrupted replay, which is resumed bit for bit,
    with as many processes as it was started with. A network of your own is named beside it
    (--task.model.factory)."""


class CardFlags(Config):
    """Flags of `automix card`."""

    output: Path | None = None
    """File of the card. Default: README.md in the folder of the run, where the Hub looks for it."""

    overwrite: bool = False
    """Overwrite an existing file that differs."""


class ReportFlags(Config):
    """Flags of `automix report`."""

    watch: bool = False
    """Write the page again whenever a run in the folder has written something, with the searches
    that are in progress, until Ctrl-C. An open page loads itself anew."""


class PlotFlags(Config):
    """Flags of `automix schedule show`."""

    plot: Path | None = None
    """PNG file to which the schedule is plotted. Default: no plot."""


class SweepFolderFlags(Config):
    """Flags of the commands about parts of a sweep."""

    output: Path | None = None
    """Folder of the sweep. Default: a folder in runs/ named after its file. Finished cells in it
    are left alone, interrupted ones resumed."""
