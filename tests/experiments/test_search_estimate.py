"""Estimates of a search: what fits into its time, and what is said on a busy machine."""

import pytest

from automix.experiments.common.cost import CostEstimate, busy_text
from automix.experiments.config import FEWEST, SearchConfig
from automix.experiments.search.estimate import count_runs, smaller_setting


def config_with(**fields: object) -> SearchConfig:
    return SearchConfig.from_mapping({"compute": {"workers": 2}, **fields}, source="test")


def test_a_search_that_fits_needs_no_advice() -> None:
    assert smaller_setting(config_with(minutes=10), 4.0) == ""
    assert smaller_setting(config_with(runs=64), 4.0) == ""


def test_a_long_search_is_told_what_an_hour_holds() -> None:
    config = config_with(runs=1000)
    assert sum(count_runs(config).values()) * 60 / 2 > 3600
    assert "--minutes 60, about 120 runs" in smaller_setting(config, 60.0)


@pytest.mark.parametrize("seconds", [11.0, 50.0, 130.0])
def test_too_few_minutes_are_told_epochs_that_fit(seconds: float) -> None:
    config = config_with(minutes=1)
    text = smaller_setting(config, seconds)
    assert f"{FEWEST} training runs are the fewest" in text
    epochs = int(text.split("--task.trainer.epochs ")[1].split()[0])
    # Time grows in proportion to the epochs.
    per_run = seconds * epochs / config.task.trainer.epochs
    assert FEWEST * per_run / 2 <= 60 or epochs == 1


def test_a_busy_machine_is_mentioned() -> None:
    assert busy_text(1.1) == ""
    free = CostEstimate(num_runs=12, seconds_per_run=2.0, seconds=12.0, steps_per_run=160)
    assert "busy" not in free.describe()
    busy = CostEstimate(
        num_runs=12, seconds_per_run=2.0, seconds=12.0, steps_per_run=160, busy=3.0, advice="less"
    )
    assert busy.describe().endswith("12 s (3.0 times as long while the machine is busy); less")
    assert (free + busy).busy == 3.0
