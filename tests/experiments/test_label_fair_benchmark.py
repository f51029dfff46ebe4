"""The comparison for the same labels and the same money, on toys with known answers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from automix.configuration.task import ComputeConfig
from automix.data.load import load_data
from automix.data.splits import TrainingImages
from automix.experiments.config import CompareConfig, SearchConfig
from benchmarks import label_fair_runs
from benchmarks.label_fair import collect, from_csv, report
from benchmarks.label_fair_runs import (
    JOURNAL_NAME,
    NONE,
    OWN_SEARCH,
    RECOMMENDED,
    LabelSet,
    Row,
    ensemble_logits,
    fold_indices,
    mean_scores,
    study_rows,
    task_on,
)
from tests.training.conftest import TASK


def test_folds_hold_out_every_image_once_and_classes_equally() -> None:
    labels = torch.tensor([0, 1, 2] * 10)
    folds = fold_indices(labels, num_folds=5)
    assert torch.cat(folds).sort().values.tolist() == list(range(30))
    assert all(labels[fold].bincount().tolist() == [2, 2, 2] for fold in folds)


def test_an_ensemble_has_the_mean_probabilities() -> None:
    probabilities = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]], [[0.2, 0.8]], [[0.4, 0.6]]])
    pairs = ensemble_logits(probabilities.log(), 2).exp()
    torch.testing.assert_close(pairs, torch.tensor([[[0.7, 0.3]], [[0.3, 0.7]]]).double())


def test_scores_take_the_temperature_they_are_given() -> None:
    # Sure, and wrong once in four: at the temperature log 9 / log 3 = 2 the odds are 3 : 1.
    logits = torch.tensor([[[math.log(9), 0.0]] * 4])
    labels = torch.tensor([0, 0, 0, 1])
    scores = mean_scores(logits, labels, [2.0])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert scores["calibrated_nll"] == pytest.approx(entropy, abs=1e-6)
    assert scores["nll_at_best"] == pytest.approx(entropy, abs=1e-6)
    assert scores["nll"] == pytest.approx(-(0.75 * math.log(0.9) + 0.25 * math.log(0.1)))
    assert scores["accuracy"] == 0.75


def test_every_label_is_counted() -> None:
    rows = study_rows(TASK.data, schedules=RECOMMENDED, constant_names=["mixup 1"])
    # 3 to train on; and 2 for the reward, 2 for the selection, in the rows that say so.
    assert {row.labels for row in rows if "as training labels" not in row.name} == {3}
    assert {row.labels for row in rows if "as training labels" in row.name} == {7}
    assert {row.length for row in rows if "twice" in row.name} == {2}
    assert task_on(TASK, labels=7, steps=16).trainer.epochs == 2  # of 8 steps


def test_a_row_is_the_same_as_a_part_of_an_ensemble(tmp_path: Path) -> None:
    config = CompareConfig(task=TASK, compute=ComputeConfig(population=1))
    label_set = LabelSet(config, 1, tmp_path)
    scores = [
        label_set.scores(Row(name=NONE, schedule=NONE, labels=5, num_runs=num_runs), num_blocks=1)
        for num_runs in (1, 2)
    ]
    assert [set(one["scores"]) for one in scores] == [{"1"}, {"1", "2"}]
    # The temperature of the first run of two; their scores are means over both.
    assert scores[0]["temperatures"]["1"] == scores[1]["temperatures"]["1"][:1]


def test_a_search_spends_the_labels_of_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SearchConfig] = []

    def refuse(config: SearchConfig, folder: Path) -> None:
        seen.append(config)
        raise InterruptedError(folder.name)

    monkeypatch.setattr(label_fair_runs, "search", refuse)
    data = TASK.data.model_copy(update={"labels_per_class": 20})
    config = CompareConfig(task=TASK.model_copy(update={"data": data}))
    row = Row(name=OWN_SEARCH, schedule=OWN_SEARCH, labels=20)
    with pytest.raises(InterruptedError, match="search-own-2"):
        LabelSet(config, 2, tmp_path).scores(row, num_blocks=1)
    used = seen[0].task.data
    assert (used.labels_per_class, used.reward_size, used.selection_size) == (15, 3, 2)
    assert used.split_seed == 2
    # The same images, whatever they are used for: parts are dealt in one order.
    final = data.model_copy(update={"split_seed": 2, "reward_size": 0, "selection_size": 0})
    searched = load_data(used).seen
    assert _pixels(searched.train, searched.reward, searched.selection) == _pixels(
        load_data(final).train
    )


def _pixels(*splits: TrainingImages) -> list[bytes]:
    images = [split.take(torch.arange(len(split)))[0] for split in splits]
    return sorted(image.numpy().tobytes() for image in torch.cat(images))


def _line(number: int, row: str, losses: dict[str, float], length: int = 1) -> str:
    generator = np.random.default_rng(number)
    noise = generator.normal(scale=0.001, size=(4, 3))
    scores = {
        size: [
            dict.fromkeys(("calibrated_nll", "nll", "nll_at_best"), loss + noise[block].sum())
            | {"accuracy": 0.9}
            for block in range(4)
        ]
        for size, loss in losses.items()
    }
    return json.dumps({"key": f"{number}/{row}", "scores": scores, "found_in": 0, "length": length})


def test_the_table_has_whole_label_sets_and_says_whether_gains_add_up(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    lines = []
    for number in range(3):
        lines.append(_line(number, NONE, {"1": 0.3, "2": 0.25}))
        lines.append(_line(number, RECOMMENDED[0], {"1": 0.2, "2": 0.17}))
        lines.append(_line(number, "mixup 1", {"1": 0.26}))
        if number < 2:
            lines.append(_line(number, f"{NONE}, twice the steps", {"1": 0.29}, length=2))
    (tmp_path / "toy" / JOURNAL_NAME).write_text("\n".join(lines) + "\n")
    outcomes = from_csv(collect(tmp_path))
    assert outcomes["toy"][NONE].losses.shape == (4, 2)
    text = report(outcomes)
    assert "toy: 2 label sets" in text
    assert "best constant, with hindsight: mixup 1 | 1 |" in text
    # 0.17 - 0.30 against (0.20 - 0.30) + (0.25 - 0.30): 0.02 short of the sum.
    row = next(line for line in text.splitlines() if "| ensemble of 2 |" in line)
    assert row.split(" | ")[-1].startswith("+0.0200 [")
