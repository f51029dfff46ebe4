"""Search, replay, evaluation and report of images with several labels, and of rare classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, recall_score
from torchmetrics.functional.classification import multiclass_recall, multilabel_average_precision

from automix.cli.main import main
from automix.configuration.data import DataConfig
from automix.configuration.task import TaskConfig
from automix.experiments.common.saved_classifier import SavedClassifier, load_saved_classifier
from automix.experiments.config import SearchConfig, SelectionConfig
from automix.experiments.evaluate.run import evaluate
from automix.experiments.replay.run import replay
from automix.experiments.report.run import write_report
from automix.experiments.search.run import search
from automix.operator_info import Operator
from envs.config import EnvironmentConfig
from tests.data.sources.test_label_file import write_images
from tests.experiments.quick_evaluation import QUICK
from tests.experiments.tiny_replay import schedule_of, tiny
from tests.experiments.tiny_search import TINY


def tiny_search(data: DataConfig, potential: str, loss: str) -> SearchConfig:
    trainer = TINY.task.trainer.model_copy(update={"epochs": 1, "batch_size": 4, "loss": loss})
    environment = TINY.environment.model_dump() | {
        "operators": (Operator.NONE, Operator.CUTMIX),
        "num_strengths": 1,
        "potential": potential,
    }
    few = {
        "portfolio": False,
        "task": TINY.task.model_copy(update={"trainer": trainer, "data": data}),
        "environment": EnvironmentConfig.model_validate(environment),
        "agent": TINY.agent.model_copy(update={"episodes": 2, "episodes_per_rollout": 2}),
        "selection": SelectionConfig(learned_candidates=1, first_seeds=1, rounds=1, final_seeds=2),
    }
    return TINY.model_copy(update=few)


def through_every_command(
    folder: Path, data: DataConfig, potential: str, loss: str
) -> tuple[dict[str, object], SavedClassifier]:
    """Search, replay, evaluate and report in ``folder``; return the evaluation."""
    search(tiny_search(data, potential, loss), folder / "search")
    config = tiny(loss=loss, batch_size=4)
    task: TaskConfig = config.task.model_copy(update={"data": data})
    replay(
        config.model_copy(update={"task": task}), schedule_of(Operator.CUTMIX), folder / "replay"
    )
    result = evaluate(QUICK, folder / "replay", folder / "replay/evaluation")
    write_report(folder)
    return result, load_saved_classifier(folder / "replay")


def test_several_labels_go_through_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = write_images(tmp_path / "images")
    data = DataConfig.model_validate(
        {
            "source": "folder",
            "path": labels.parent / "images",
            "labels": labels,
            "cache": tmp_path / "cache",
        }
    )
    runs = tmp_path / "runs"
    result, classifier = through_every_command(
        runs, data, "mean_average_precision", "binary_cross_entropy"
    )
    part = json.loads(json.dumps(result))["several_labels"]
    test = classifier.data.test
    logits = classifier.predict(test.images)
    rows = test.labels.numpy()
    expected = average_precision_score(rows, logits.numpy(), average=None)
    assert part["average_precisions"] == pytest.approx(expected.tolist(), abs=1e-5)
    of_torchmetrics = multilabel_average_precision(logits.sigmoid(), test.labels.long(), 3)
    assert part["mean_average_precision"] == pytest.approx(of_torchmetrics.item(), abs=1e-5)
    recalls = recall_score(rows, (logits > 0).numpy(), average=None)
    assert part["recalls"] == pytest.approx(recalls.tolist())
    assert part["worst_class_accuracy"] == pytest.approx(recalls.min())
    assert part["counts"] == rows.sum(0).astype(int).tolist()
    assert "Scores of each class" in (runs / "report.html").read_text()
    assert main(["evaluate", str(runs / "replay"), "--tasks", "attacks"]) == 2
    assert (
        "tasks: expected 'several_labels' alone for images with several labels, got attacks\n"
        in capsys.readouterr().err
    )


def test_rare_classes_go_through_every_command(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number, (name, count) in enumerate({"cat": 30, "dog": 15, "emu": 8}.items()):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(count):
            pixels = generator.integers(0, 100, (8, 8, 3)) + 120 * (np.arange(3) == number)
            path = tmp_path / "photos" / name / f"{index}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    data = DataConfig.model_validate(
        {
            "source": "folder",
            "path": tmp_path / "photos",
            "cache": tmp_path / "cache",
            "sampling": "balanced",
        }
    )
    result, classifier = through_every_command(
        tmp_path / "runs", data, "worst_class_accuracy", "cross_entropy"
    )
    part = json.loads(json.dumps(result))["classification"]
    test = classifier.data.test
    answers = classifier.predict(test.images).argmax(dim=1)
    recalls = recall_score(test.labels, answers, average=None)
    assert part["classes"]["values"] == pytest.approx(recalls.tolist())
    of_torchmetrics = multiclass_recall(answers, test.labels, num_classes=3, average="none")
    assert part["classes"]["worst"] == pytest.approx(of_torchmetrics.min().item())
    written = json.loads((tmp_path / "runs/replay/result.json").read_text())["test"]
    assert written["worst_class_accuracy"] == pytest.approx(part["classes"]["worst"])
    assert torch.bincount(test.labels).tolist() == part["classes"]["counts"]
