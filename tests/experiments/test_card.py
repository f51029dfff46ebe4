import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError, ConfigError
from automix.experiments.config import CardConfig
from automix.experiments.evaluate.config import AttacksConfig, EvaluateConfig, EvaluationTask
from automix.experiments.evaluate.run import evaluate
from automix.experiments.replay.deciders import ScheduleSource
from automix.experiments.replay.final_test import summarize
from automix.experiments.replay.run import replay
from automix.experiments.report.card import make_card, write_card
from automix.experiments.report.finished_runs import FinishedRun
from automix.experiments.report.search_sections import cost_of
from automix.operator_info import Operator
from automix.reporting.figures.comparison import cost_table
from automix.schedule import Decision, mixture_then_off
from envs.smoke import SMOKE_TASK

HOSTILE = "no: [x] | `y` <b> # 'z' \"*\" ---"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished replay without an evaluation; read only."""
    folder = tmp_path_factory.mktemp("card") / "run"
    operators = (Operator.SALIENCYMIX, Operator.CUTMIX)
    schedule = mixture_then_off([Decision(operator=operator) for operator in operators])
    replay(ReplayConfig(seed=2, task=SMOKE_TASK), ScheduleSource(schedule), folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with an evaluation in it; read only."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    folder.mkdir()
    for path in trained.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = EvaluateConfig(
        tasks=(EvaluationTask.CLASSIFICATION, EvaluationTask.CORRUPTIONS, EvaluationTask.ATTACKS),
        attacks=AttacksConfig(steps=1, restarts=1),
    )
    evaluate(config, folder, folder / "evaluation")
    return folder


def front_of(text: str) -> dict[str, Any]:
    """Parse the front matter with an ordinary YAML parser."""
    assert text.startswith("---\n")
    front: dict[str, Any] = yaml.safe_load(text[4:].partition("\n---\n")[0])
    return front


def data_of(text: str) -> ModelCardData:
    """Return the front matter as the Hub's own parser reads it."""
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


def results_of(text: str) -> dict[str, Any]:
    """Return the metrics of the card by name, as the Hub's own parser reads them."""
    results = data_of(text).eval_results
    assert results is not None
    return {str(result.metric_name): result.metric_value for result in results}


def test_a_classifiers_card_is_read_by_the_hubs_own_parser(trained: Path) -> None:
    text = make_card(trained, CardConfig(license="mit"))
    data = data_of(text)
    assert (data.license, data.library_name) == ("mit", "automix")
    assert data.pipeline_tag == "image-classification"
    assert data.tags is not None
    assert {"saliencymix", "cutmix"} <= set(data.tags)
    assert "none" not in data.tags
    assert data.model_name == "run"
    assert data.eval_results is not None
    assert data.eval_results[0].dataset_split == "test"
    result = json.loads((trained / "result.json").read_text())
    assert results_of(text)["top-1 accuracy"] == pytest.approx(result["test"]["accuracy"])
    assert "placeholder" not in text
    assert "cutmix 1 p=0.5" in text.partition("## Schedule")[2]
    command = json.loads((trained / "environment.json").read_text())["command"]
    assert f"\n    {command}\n" in text
    assert "torch 2" in text
    assert "Nothing else was evaluated yet" in text


def test_evaluations_of_this_classifier_are_in_its_card(evaluated: Path) -> None:
    text = make_card(evaluated, CardConfig())
    result = json.loads((evaluated / "evaluation" / "result.json").read_text())
    scores = results_of(text)
    before, after = result["classification"]["as_trained"], result["classification"]["rescaled"]
    assert scores["expected calibration error, 15 equal-width bins"] == pytest.approx(
        before["ece"], abs=1e-6
    )
    assert scores["ECE after scaling, temperature fitted on selection images"] == pytest.approx(
        after["ece"], abs=1e-6
    )
    # One number under one name, from the replay and from its evaluation.
    [calibrated] = re.findall(r"calibrated NLL, nats \(temperature .*?\) \| ([\d.]+)", text)
    assert float(calibrated) == pytest.approx(after["nll"], abs=2e-4)
    assert f"calibrated NLL {after['nll']:.4f} nats" in text
    assert ("worse than before" in text) == (after["ece"] > before["ece"])
    assert "unnormalized mean corruption error (own implementation)" in scores
    assert scores["accuracy under PGD, 8/255"] == pytest.approx(result["attacks"]["pgd"], abs=1e-6)
    assert "unnormalized mean corruption error" in text.partition("## Results")[2]


def test_evaluations_of_other_weights_are_not(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "evaluation").mkdir(parents=True)
    for name in ("result.json", "environment.json", "config.yaml", "schedule.json"):
        (folder / name).write_bytes((evaluated / name).read_bytes())
    for name in ("result.json", "environment.json"):
        content = (evaluated / "evaluation" / name).read_bytes()
        (folder / "evaluation" / name).write_bytes(content)
    (folder / "classifier.safetensors").write_bytes(b"others")
    assert set(results_of(make_card(folder, CardConfig()))) == {
        "top-1 accuracy",
        "negative log-likelihood (nats)",
    }


def test_scores_whose_temperature_would_be_that_of_the_test_images_are_not_given(
    trained: Path, tmp_path: Path
) -> None:
    names = ("environment.json", "config.yaml", "schedule.json", "classifier.safetensors")
    for name in names:
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    result = json.loads((trained / "result.json").read_text()) | {"selection": None}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert "| not given: no selection images |" in make_card(tmp_path, CardConfig())
    assert "calibrated" not in summarize(result)


def test_the_card_of_a_race_calls_nothing_learned_and_counts_as_its_table_does(
    finished_search: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_search, tmp_path / "race", ignore=lambda *_: ["sums.json"])
    result = json.loads((finished_search / "result.json").read_text())
    cost = result["cost"]
    table = cost_table(cost_of(FinishedRun(finished_search)), name="cost", title="")
    assert table.rows[-1][:2] == ("total", cost["trainings"])
    assert f"{cost['trainings']} training runs (" in make_card(finished_search, CardConfig())
    (tmp_path / "race" / "result.json").write_text(json.dumps(result | {"episodes": []}))
    text = make_card(tmp_path / "race", CardConfig())
    assert "nothing was learned" in text
    assert "nan" not in text
    assert "policy" not in text.partition("## Result")[0]


def test_a_policys_card(finished_search: Path) -> None:
    text = make_card(finished_search, CardConfig())
    data = data_of(text)
    assert data.pipeline_tag == "reinforcement-learning"
    assert data.eval_results is not None
    assert data.eval_results[0].dataset_type == "AutoMix/MixSchedule-v0"
    value = str(data.eval_results[0].metric_value)
    result = json.loads((finished_search / "result.json").read_text())
    rewards = [episode["total_reward"] for episode in result["episodes"][-4:]]
    mean, deviation = (float(part) for part in value.split(" +/- "))
    assert mean == pytest.approx(sum(rewards) / 4, abs=1e-4)
    assert deviation >= 0
    assert result["selected"].split()[0] in text


def test_without_a_license_the_card_says_that_it_is_a_placeholder(trained: Path) -> None:
    text = make_card(trained, CardConfig())
    assert front_of(text)["license"] == "unknown"
    assert "`unknown` is a placeholder" in text


def test_a_license_of_ones_own_is_named(trained: Path) -> None:
    config = CardConfig(license="other", license_name="ours: 1", license_link="LICENSE")
    front = front_of(make_card(trained, config))
    assert (front["license"], front["license_name"]) == ("other", "ours: 1")
    assert front["license_link"] == "LICENSE"


@pytest.mark.parametrize("name", [HOSTILE, "yes", "1e3", "null", "- x", "\u00e9\u4e2d", "a: b"])
def test_any_name_gives_valid_yaml_and_one_heading(trained: Path, name: str) -> None:
    text = make_card(trained, CardConfig(name=name))
    assert front_of(text)["model-index"][0]["name"] == name
    assert data_of(text).model_name == name
    body = text.partition("\n---\n")[2]
    assert [line for line in body.splitlines() if line.startswith("# ")] != []
    assert "<b>" not in body


def test_a_card_with_other_words_is_kept(trained: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"README\.md: expected no file or --overwrite"):
        write_card(trained, CardConfig(), output=path, overwrite=False)
    assert path.read_text() == "mine"
    write_card(trained, CardConfig(), output=path, overwrite=True)
    # The same words again are no loss.
    assert write_card(trained, CardConfig(), output=path, overwrite=False) == path


def test_other_runs_have_no_card(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="or of a search, which has a policy, got one of 'eval"
    ):
        make_card(evaluated / "evaluation", CardConfig())
    with pytest.raises(CheckpointError, match=r"result\.json: expected a readable file"):
        make_card(tmp_path, CardConfig())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"license": "MIT License"}, "license: expected"),
        ({"license": "other"}, "expected license_name and license_link .* got none of both"),
        ({"license": "other", "license_name": "x"}, "got one of both"),
        ({"license": "mit", "license_link": "x"}, "but with the license 'other'"),
        ({"name": "a\nb"}, "name: expected"),
    ],
)
def test_wrong_options_are_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CardConfig.from_mapping(values, source="card")


def test_a_line_break_in_the_command_stays_in_the_code_block(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("sums.json"))
    path = folder / "environment.json"
    values = json.loads(path.read_text())
    values["command"] = "automix replay x\n\n# Pwned <script>\x1b[2J"
    path.write_text(json.dumps(values))
    lines = make_card(folder, CardConfig()).splitlines()
    assert r"    automix replay x\n\n# Pwned <script>\x1b[2J" in lines
    assert not [line for line in lines if line.startswith("# Pwned")]
