"""TensorBoard: the schedule of a search as a picture, and its row of hyperparameters."""

import numpy as np

from automix.experiments.common.run_folder import RunFolder
from automix.experiments.search.verdict import Losses
from automix.reporting.canvas import rgb_array
from automix.reporting.figures.schedule import SchedulePanel, schedule_figure
from automix.schedule import Schedule


def show_outcome(run: RunFolder, name: str, schedule: Schedule, losses: Losses) -> None:
    """Show the selected schedule, and the configuration beside what the final measured.

    ``losses`` are those of the finalists, of which ``name`` is selected; a loss that is not finite
    is left out.
    """
    panel = SchedulePanel(title=name, schedules=(schedule,))
    run.log_picture("schedule", rgb_array(schedule_figure([panel])))
    means = {"selected": losses[name].mean(), "none": losses["none"].mean()}
    run.log_hyperparameters(
        {f"final/{key}": float(mean) for key, mean in means.items() if np.isfinite(mean)}
    )
