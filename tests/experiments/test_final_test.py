"""Intervals of a replayed training run over its test images."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats

from automix.data.load import load_data
from automix.experiments.replay.final_test import final_scores
from automix.training.trainer import build_trainer
from tests.experiments.tiny_replay import tiny


def test_intervals_are_those_of_the_losses_of_the_images() -> None:
    config = tiny()
    data = load_data(config.task.data)
    trainer = build_trainer(config.task, data.seen, seed=0)
    scores = final_scores(trainer, data)
    selection = trainer.evaluate(data.seen.selection)
    test = trainer.evaluate(data.test, temperature=selection.temperature)
    assert scores["test"] == dataclasses.asdict(test)
    assert scores["selection"] == dataclasses.asdict(selection)
    logits = trainer.logits(data.test).double()
    count = len(data.test)
    for name, temperature in (("nll", 1.0), ("calibrated_nll", selection.temperature)):
        rows = torch.log_softmax(logits / temperature, dim=1)[range(count), data.test.labels]
        losses = -rows.numpy()
        interval = scores["test_intervals"][name]
        assert interval["estimate"] == pytest.approx(scores["test"][name], rel=1e-5)
        low, high = stats.norm.interval(
            0.95, loc=losses.mean(), scale=np.std(losses, ddof=1) / math.sqrt(count)
        )
        assert (interval["low"], interval["high"]) == pytest.approx((low, high), rel=1e-4)
    wilson = stats.binomtest(round(test.accuracy * count), count).proportion_ci(method="wilson")
    accuracy = scores["test_intervals"]["accuracy"]
    assert (accuracy["low"], accuracy["high"]) == pytest.approx((wilson.low, wilson.high))


def test_a_classifier_of_infinite_loss_has_no_intervals() -> None:
    config = tiny()
    data = load_data(config.task.data)
    trainer = build_trainer(config.task, data.seen, seed=0)
    with torch.no_grad():
        for parameter in trainer.evaluated_model.parameters():
            parameter.fill_(math.nan)
    assert final_scores(trainer, data)["test_intervals"] is None
