"""Networks of libraries and of users go through search, replay, resume and evaluation."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from automix.cli.main import main
from automix.configuration.task import ModelConfig, SaliencyConfig, TaskConfig
from automix.errors import CheckpointError
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.saved_classifier import load_classifier
from automix.experiments.config import SearchConfig, SelectionConfig
from automix.experiments.evaluate.config import EvaluationTask
from automix.experiments.evaluate.run import evaluate
from automix.experiments.replay.run import replay
from automix.experiments.report.run import write_report
from automix.experiments.search.run import search
from automix.models.build import build_model
from automix.operator_info import Operator, SaliencyKind
from automix.schedule import Schedule
from tests.equality import assert_same
from tests.experiments.quick_evaluation import QUICK
from tests.experiments.test_search_interrupted import Interruptions
from tests.experiments.tiny_replay import Stops, attempts, outputs, schedule_of, tiny
from tests.experiments.tiny_search import TINY
from tests.experiments.tiny_search import outputs as search_outputs

TASKS = (
    EvaluationTask.CLASSIFICATION,
    EvaluationTask.ATTACKS,
    EvaluationTask.SALIENCY_REMOVAL,
)
HERE = "tests.models.users_networks"
FACTORY = f"{HERE}:inception"
ROLLOUT = SaliencyConfig(source=SaliencyKind.ATTENTION_ROLLOUT)
TAGGED = "tagged timm name with weights of a file"
ATTENTION = "attention of a timm transformer"
NETWORKS: dict[str, dict[str, Any]] = {
    TAGGED: {"model": ModelConfig(name="timm/automix_tiny_vit.of_tests")},
    ATTENTION: {
        "model": ModelConfig(name="timm/automix_tiny_vit.of_tests"),
        "saliency": ROLLOUT,
    },
    "factory": {"model": ModelConfig(factory=f"{HERE}:tiny")},
    "auxiliary output": {"model": ModelConfig(factory=FACTORY)},
    "dataclass": {"model": ModelConfig(factory=f"{HERE}:dataclasses")},
    "transformers": {"model": ModelConfig(factory=f"{HERE}:transformers_vit")},
    "attention of transformers": {
        "model": ModelConfig(factory=f"{HERE}:transformers_vit"),
        "saliency": ROLLOUT,
    },
}


def task_of(name: str, task: TaskConfig, folder: Path) -> TaskConfig:
    if "timm" in name:
        pytest.importorskip("timm", reason="needs the extra timm")
        importlib.import_module("tests.models.timm_networks")
    if "transformers" in name:
        pytest.importorskip("transformers", reason="needs the extra transformers")
    task = task.model_copy(update=NETWORKS[name])
    if name != TAGGED:
        return task
    # Of 7 classes: the head is new.
    generator = torch.Generator().manual_seed(0)
    weights = build_model(
        task.model, num_classes=7, channels=1, generator=generator, image_size=(8, 8)
    ).state_dict()
    save_file(weights, folder / "weights.safetensors")
    model = task.model.model_copy(update={"weights": folder / "weights.safetensors"})
    return task.model_copy(update={"model": model})


def tiny_search(name: str, folder: Path) -> SearchConfig:
    task = task_of(name, TINY.task, folder)
    few = {
        "portfolio": False,
        "task": task.model_copy(update={"trainer": task.trainer.model_copy(update={"epochs": 1})}),
        "environment": TINY.environment.model_copy(
            update={"operators": (Operator.NONE, Operator.SALIENCYMIX), "num_strengths": 1}
        ),
        "agent": TINY.agent.model_copy(update={"episodes": 2, "episodes_per_rollout": 2}),
        "selection": SelectionConfig(learned_candidates=1, first_seeds=1, rounds=1, final_seeds=2),
    }
    return TINY.model_copy(update=few)


SLOW = pytest.mark.slow
FAST = ("factory", "auxiliary output", "transformers", TAGGED)
SEARCHES = [
    pytest.param(ATTENTION, True, id=ATTENTION),
    *(pytest.param(name, False, id=name) for name in FAST),
    *(
        pytest.param(name, True, id=f"{name}, same bits", marks=SLOW)
        for name in NETWORKS
        if name != ATTENTION
    ),
]


@pytest.mark.parametrize(("name", "compared"), SEARCHES)
def test_a_search_takes_it_and_resumes(
    name: str, compared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_search(name, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", Interruptions(2).wrap(Journal.add, after=True))
        with pytest.raises(KeyboardInterrupt):
            search(config, tmp_path / "cut")
    search(config, tmp_path / "cut")
    assert Schedule.load(tmp_path / "cut/schedule.json")
    if compared:
        search(config, tmp_path / "whole")
        assert search_outputs(tmp_path / "cut") == search_outputs(tmp_path / "whole")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_replay_resumes_bit_for_bit_and_is_evaluated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    config = config.model_copy(update={"task": task_of(name, config.task, tmp_path)})
    source = schedule_of(Operator.SALIENCYMIX)
    replay(config, source, tmp_path / "whole")
    stops = Stops(monkeypatch)
    stops.steps = {2, 5}
    assert list(attempts(config, source, tmp_path / "cut")) == [False, False, True]
    whole, cut = (outputs(tmp_path / folder) for folder in ("whole", "cut"))
    assert_same(cut, whole)
    kind = config.task.saliency.source
    updates = {
        "images": 8,
        "factory": config.task.model.factory,
        "tasks": TASKS,
        "attribution": QUICK.attribution.model_copy(update={"sources": (kind,), "images": 4}),
    }
    result = evaluate(QUICK.model_copy(update=updates), tmp_path / "cut", tmp_path / "evaluation")
    assert result["model"] == config.task.model.title
    assert 0 <= result["classification"]["top1"] <= 1
    assert list(result["saliency_removal"]["sources"]) == [kind.value]


def run_of_factory(folder: Path) -> Path:
    config = tiny()
    model = ModelConfig(factory=FACTORY)
    config = config.model_copy(update={"task": config.task.model_copy(update={"model": model})})
    replay(config, schedule_of(Operator.CUTMIX), folder)
    return folder


def test_the_files_of_a_run_import_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of_factory(tmp_path / "runs/replay")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a factory of a file was called")

    with monkeypatch.context() as patch:
        patch.setattr("automix.models.build.network_of_factory", refused)
        expected = rf"--factory with the factory that built its network \({FACTORY}\)"
        with pytest.raises(CheckpointError, match=expected):
            load_classifier(run)
        for named in ([], ["--factory", f"{HERE}:tiny"]):
            assert main(["evaluate", str(run), *named]) == 2
            assert FACTORY in capsys.readouterr().err
        assert main(["replay", "--resume", str(run)]) == 2
        message = capsys.readouterr().err
        assert "expected --task.model.factory with the factory that built its network" in message
        assert message.count("\n") == 1
        write_report(tmp_path / "runs")
    assert main(["replay", "--resume", str(run), "--task.model.factory", FACTORY]) == 0
    assert load_classifier(run, factory=FACTORY)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raising", "to return a network, got RuntimeError: no network of 10 classes"),
        ("no_module", "to return a torch.nn.Module, got a list"),
        ("eleven", "its output is no logits of 10 classes, but (2, 11)"),
        ("only_features", "got dict with features; wrap the network in one that returns them"),
        ("unknown", f"expected a function 'unknown' in the module '{HERE}', got none"),
    ],
)
def test_a_factory_without_a_classifier_is_one_line(
    function: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    schedule = tmp_path / "schedule.json"
    schedule_of(Operator.CUTMIX).schedule.save(schedule)
    argv = ["replay", str(schedule), "--output", str(tmp_path / "run")]
    assert main([*argv, "--task.model.factory", f"{HERE}:{function}"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[-1].startswith("task.model.factory: expected ")
    assert error[-1].endswith(message)
    assert not (tmp_path / "run").exists()


def test_a_weight_without_auxiliary_logits_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    schedule = tmp_path / "schedule.json"
    schedule_of(Operator.CUTMIX).schedule.save(schedule)
    argv = ["replay", str(schedule), "--output", str(tmp_path / "run")]
    assert main([*argv, "--task.trainer.auxiliary-weight", "0.3"]) == 2
    assert "task.trainer.auxiliary_weight: expected nothing" in capsys.readouterr().err
