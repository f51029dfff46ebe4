import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError, ConfigError, DataError, DivergedError
from automix.evaluation.corruptions.registry import Corruption
from automix.experiments.common.kept_files import SUMS_NAME
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.saved_classifier import load_saved_classifier
from automix.experiments.evaluate import run as experiment
from automix.experiments.evaluate.config import EvaluateConfig, EvaluationTask, LocalizationConfig
from automix.experiments.evaluate.run import evaluate, predict_cost, summarize_evaluation
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.run import replay
from automix.operator_info import Operator, SaliencyKind
from automix.schedule import Decision, constant_schedule
from envs.smoke import SMOKE_TASK
from tests.experiments.quick_evaluation import QUICK, every_task


def read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_every_task_is_in_the_result_and_agrees_with_the_replay(
    trained: Path, evaluated: Path
) -> None:
    result, trained_result = read(evaluated), read(trained)
    # The last one is of images with several labels.
    assert [name for name in result if name in set(EvaluationTask)] == [*EvaluationTask][:-1]
    scores = result["classification"]
    test = trained_result["test"]
    assert scores["top1"] == pytest.approx(test["accuracy"])
    assert scores["as_trained"]["nll"] == pytest.approx(test["nll"], rel=1e-5)
    assert result["num_images"] == scores["num_images"] == test["num_images"]
    # The temperature is that of the validation images, not of the test images.
    assert test["temperature"] == pytest.approx(trained_result["selection"]["temperature"])
    assert scores["temperature"] == pytest.approx(test["temperature"], rel=1e-3)
    assert scores["rescaled"]["nll"] == pytest.approx(test["calibrated_nll"], rel=1e-4)
    assert scores["top1_interval"][0] < scores["top1"] < scores["top1_interval"][1]
    assert sum(scores["classes"]["counts"]) == scores["num_images"]
    clean = 1 - result["corruptions"]["errors"]["brightness"][0]
    assert set(result["corruptions"]["errors"]) == {value.value for value in Corruption}
    assert 0 <= clean <= 1
    assert result["corruptions"]["source"] == "own implementation"
    for name in ("patch_occlusion", "object_occlusion"):
        curve = result[name]
        assert len(curve["fractions"]) == len(curve["accuracies"])
    assert result["patch_occlusion"]["accuracies"][0] == pytest.approx(scores["top1"])
    assert result["object_occlusion"]["object_from"].startswith("boxes")
    assert result["object_occlusion"]["num_images"] == 9
    attacks = result["attacks"]
    assert attacks["num_images"] == 12
    assert attacks["clean"] >= attacks["fgsm"]
    assert attacks["clean"] >= attacks["pgd"]
    located = result["localization"]
    assert located["num_images"] == 9
    assert located["layer"] == "stage3"
    assert 0 <= located["top1_max_box_acc_v2"] <= located["max_box_acc_v2"] <= 1
    assert located["max_box_acc_v2_cross_fitted"] <= located["max_box_acc_v2"]
    removal = result["saliency_removal"]
    # A convolutional network has no attention.
    kinds = [kind for kind in SaliencyKind if kind is not SaliencyKind.ATTENTION_ROLLOUT]
    assert list(removal["sources"]) == [kind.value for kind in kinds]
    assert removal["patch_size"] == 2
    for curves in removal["sources"].values():
        for order in ("salient", "random", "least"):
            assert curves[order][0] == pytest.approx(scores["top1"])
        low, high = curves["margin_interval"]
        assert low <= curves["margin"] <= high
    # Compared with itself here.
    (other,) = result["attribution_consistency"]["runs"]
    assert "spectral_residual" not in other["sources"]
    assert all(row["top_quarter"] == 1 for row in other["sources"].values())


def test_a_finished_unit_is_not_run_again(
    trained: Path, evaluated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = QUICK.model_copy(update={"tasks": tuple(list(EvaluationTask)[:3])})
    output = tmp_path / "evaluation"
    finished: list[str] = []
    add = Journal.add

    def stop_at_fog(self: Journal, key: str, result: dict[str, Any]) -> None:
        if key == "corruptions/fog":
            raise KeyboardInterrupt
        finished.append(key)
        add(self, key, result)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "add", stop_at_fog)
        with pytest.raises(KeyboardInterrupt):
            evaluate(config, trained, output)
    assert not (output / "result.json").exists()
    assert finished[0] == "classification/classification"
    assert finished[-1] == "corruptions/frost"
    before = len(finished)

    def note(self: Journal, key: str, result: dict[str, Any]) -> None:
        finished.append(key)
        add(self, key, result)

    monkeypatch.setattr(Journal, "add", note)
    result = evaluate(config, trained, output)
    assert finished[before] == "corruptions/fog"
    assert len(finished) == len(set(finished))
    uninterrupted = read(evaluated)
    for task in config.chosen_tasks:
        assert result[task.value] == uninterrupted[task.value]
    size = len(finished)
    assert evaluate(config, trained, output) == result
    assert len(finished) == size


def test_batches_and_order_of_work_do_not_change_the_result(
    trained: Path, evaluated: Path, tmp_path: Path
) -> None:
    config = QUICK.model_copy(update={"batch_size": 7})
    result, before = evaluate(config, trained, tmp_path / "evaluation"), read(evaluated)
    for task in ("corruptions", "patch_occlusion", "attacks"):
        assert result[task] == before[task]
    assert result["classification"]["as_trained"]["nll"] == pytest.approx(
        before["classification"]["as_trained"]["nll"]
    )
    # Without boxes localization is hidden, and saliency says what the object is.
    assert "localization" not in result
    assert result["object_occlusion"]["object_from"] == "saliency (spectral residual)"


def test_a_subset_of_the_images_is_drawn_once(trained: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(tasks=(EvaluationTask.CLASSIFICATION,), images=6)
    results = [evaluate(config, trained, tmp_path / str(number)) for number in range(2)]
    assert results[0] == results[1]
    assert results[0]["classification"]["num_images"] == 6
    other = evaluate(config.model_copy(update={"seed": 5}), trained, tmp_path / "other")
    assert other["classification"]["classes"] != results[0]["classification"]["classes"]


def test_groups_of_a_file(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"
    rows = "".join(f"{number},{'snow' if number < 5 else 'grass'}\n" for number in range(20))
    path.write_text("image,group\n" + rows)
    config = EvaluateConfig(tasks=(EvaluationTask.CLASSIFICATION,), groups=path)
    scores = evaluate(config, trained, tmp_path / "evaluation")["classification"]
    assert scores["groups"]["names"] == ["grass", "snow"]
    assert scores["groups"]["counts"] == [15, 5]
    assert 0 <= scores["groups"]["macro_std"] <= 0.5
    weighted = np.average(scores["groups"]["values"], weights=[15, 5])
    assert weighted == pytest.approx(scores["top1"])


def test_progress_goes_to_the_metrics(evaluated: Path) -> None:
    lines = [json.loads(line) for line in (evaluated / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines for name in line}
    assert {"classification/top1", "attacks/pgd", "corruptions/seconds"} <= names
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert any((evaluated / "tensorboard").iterdir())


def test_the_summary_says_where_corruptions_come_from(evaluated: Path) -> None:
    text = summarize_evaluation(read(evaluated))
    assert "unnormalized mean corruption error" in text
    assert "own implementation" in text
    assert len(text.splitlines()) == len(EvaluationTask) - 1  # no several labels


def test_a_dry_run_writes_nothing(trained: Path) -> None:
    before = sorted(trained.rglob("*"))
    text = predict_cost(QUICK, trained)
    assert sorted(trained.rglob("*")) == before
    assert all(task.value in text for task in QUICK.chosen_tasks)
    assert text.splitlines()[-1].startswith("20 test images: about")


def copied(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in trained.iterdir():
        # Without the sums, which tell every change.
        if path.is_file() and path.name != SUMS_NAME:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_damaged_classifiers_are_one_line(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    path = folder / "classifier.safetensors"
    weights = safetensors.torch.load(path.read_bytes())
    for wrong in (
        {**weights, "extra": torch.zeros(1)},
        {**weights, "head.weight": torch.zeros(3)},
        {name: weight for name, weight in weights.items() if name != "head.bias"},
    ):
        path.write_bytes(safetensors.torch.save(wrong))
        with pytest.raises(CheckpointError, match="expected weights that fit") as caught:
            load_saved_classifier(folder)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(
        CheckpointError, match=r"safetensors: expected a readable file, got: no such"
    ):
        load_saved_classifier(folder)


def test_runs_that_cannot_be_evaluated(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"result\.json: expected a readable file"):
        load_saved_classifier(tmp_path / "nowhere")
    folder = copied(trained, tmp_path)
    result = read(trained)
    (folder / "result.json").write_text(json.dumps(result | {"kind": "search"}))
    with pytest.raises(
        CheckpointError, match=r"expected the run of a replay, .* got one of 'search'"
    ):
        load_saved_classifier(folder)
    (folder / "result.json").write_text(json.dumps(result | {"data": "0" * 16}))
    with pytest.raises(CheckpointError, match="expected the data of the training"):
        load_saved_classifier(folder)
    with pytest.raises(
        ConfigError, match=r"--data-path: data\.path: expected no path for the source"
    ):
        load_saved_classifier(trained, data_path=tmp_path)


def test_another_classifier_is_refused_in_the_same_folder(
    trained: Path, evaluated: Path, boxes: Path, tmp_path: Path
) -> None:
    folder = copied(trained, tmp_path)
    path = folder / "classifier.safetensors"
    weights = safetensors.torch.load(path.read_bytes())
    path.write_bytes(safetensors.torch.save({n: -t for n, t in weights.items()}))
    config = every_task(boxes, trained)
    with pytest.raises(CheckpointError, match="expected the evaluation of this classifier"):
        evaluate(config, folder, evaluated)


def test_logits_that_are_not_finite_are_refused(trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    path = folder / "classifier.safetensors"
    weights = safetensors.torch.load(path.read_bytes())
    weights["head.weight"] = torch.full_like(weights["head.weight"], 3e38)
    path.write_bytes(safetensors.torch.save(weights))
    with pytest.raises(DivergedError, match="expected finite logits, got others for"):
        evaluate(QUICK, folder, tmp_path / "evaluation")


def test_published_arrays_must_be_the_published_ones_and_fit(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EvaluateConfig.model_validate(
        {"tasks": ["corruptions"], "corruptions": {"published": tmp_path}}
    )
    with pytest.raises(DataError, match=r"labels\.npy: expected a readable file"):
        evaluate(config, trained, tmp_path / "evaluation")
    np.save(tmp_path / "labels.npy", np.zeros(50_000, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels\.npy: expected the published file of CIFAR-10-C"):
        evaluate(config, trained, tmp_path / "evaluation")
    monkeypatch.setattr(experiment, "published_archive", lambda config: "CIFAR-100-C")
    with pytest.raises(
        ConfigError, match="expected a classifier of 100 classes of images of 3 x 32"
    ):
        evaluate(config, trained, tmp_path / "evaluation")
    assert not (tmp_path / "evaluation").exists()


def test_without_a_selection_split_there_is_no_temperature(tmp_path: Path) -> None:
    data = SMOKE_TASK.data.model_copy(update={"selection_size": 0})
    task = SMOKE_TASK.model_copy(update={"data": data})
    schedule = constant_schedule(Decision(operator=Operator.NONE))
    replay(ReplayConfig(task=task), ScheduleSource(schedule), tmp_path / "run")
    with pytest.raises(ConfigError, match="expected a run with a selection split"):
        evaluate(QUICK, tmp_path / "run", tmp_path / "evaluation")
    config = QUICK.model_copy(update={"tasks": (EvaluationTask.PATCH_OCCLUSION,)})
    assert "patch_occlusion" in evaluate(config, tmp_path / "run", tmp_path / "evaluation")


def test_sources_of_maps_are_those_that_the_network_has(trained: Path, tmp_path: Path) -> None:
    values = {"tasks": ["saliency_removal"], "attribution": {"sources": ["spectral_residual"]}}
    config = EvaluateConfig.from_mapping(values, source="evaluate.yaml")
    result = evaluate(config, trained, tmp_path / "removal")
    assert list(result["saliency_removal"]["sources"]) == ["spectral_residual"]
    alone = config.model_copy(update={"images": 1})
    with pytest.raises(ConfigError, match=r"attribution\.images: expected at least 2"):
        evaluate(alone, trained, tmp_path / "one")
    values = {
        "tasks": ["attribution_consistency"],
        "attribution": {"sources": ["spectral_residual"], "runs": [str(trained)]},
    }
    config = EvaluateConfig.from_mapping(values, source="evaluate.yaml")
    with pytest.raises(ConfigError, match="expected one that reads the network"):
        evaluate(config, trained, tmp_path / "consistency")


def test_unknown_layers_and_unsuitable_ones_are_refused(
    trained: Path, boxes: Path, tmp_path: Path
) -> None:
    config = EvaluateConfig(tasks=(EvaluationTask.LOCALIZATION,), boxes=boxes)
    for layer, message in (
        ("stage9", "expected a module of the network, such as stage1, .* got 'stage9'"),
        ("head", "localization.layer: expected a module that runs once and returns"),
    ):
        wrong = config.model_copy(update={"localization": LocalizationConfig(layer=layer)})
        with pytest.raises(ConfigError, match=message):
            evaluate(wrong, trained, tmp_path / layer)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": ["localization"]}, "expected a file of boxes with the task 'localization'"),
        ({"occlusion": {"object_from": "boxes"}}, "expected a file of boxes with occlusion"),
        ({"tasks": ["attacks"], "boxes": "b.csv"}, "expected no boxes without the tasks"),
        (
            {"tasks": ["attacks"], "groups": "g.csv"},
            "expected the task 'classification' with an option of it, got the tasks attacks",
        ),
        ({"tasks": ["classification"], "attacks": {"autoattack": True}}, "the task 'attacks'"),
        ({"tasks": ["attack"]}, "did you mean 'attacks'"),
        ({"tasks": ["attribution_consistency"]}, "expected attribution.runs with the task"),
        ({"tasks": ["attacks"], "attribution": {"runs": ["r"]}}, "the task 'attribution_consist"),
        ({"attacks": {"epsilon_levels": -1}}, "greater than or equal to 0"),
    ],
)
def test_options_without_effect_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateConfig.from_mapping(values, source="evaluate.yaml")


def test_the_classifier_is_the_one_that_was_trained(trained: Path) -> None:
    classifier = load_saved_classifier(trained)
    assert not any(module.training for module in classifier.model.modules())
    test = classifier.data.test
    logits = classifier.predict(test.images)
    accuracy = (logits.argmax(1) == test.labels).double().mean().item()
    assert accuracy == pytest.approx(read(trained)["test"]["accuracy"])
    pixels = classifier.in_pixels()(test.images.float() / 255)
    torch.testing.assert_close(pixels, logits, rtol=1e-4, atol=1e-4)
