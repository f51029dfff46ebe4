"""Model cards: what the Hub shows about a classifier or a policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from automix.data.config import DataSource
from automix.errors import CheckpointError, ConfigError
from automix.experiments.card_config import CardConfig
from automix.experiments.card_text import classifier_text, policy_text
from automix.experiments.config import ReplayConfig, SearchConfig
from automix.experiments.finished import FinishedRun
from automix.experiments.runs import RESULT_NAME
from automix.experiments.trained import weights_hash
from automix.files import write_text
from automix.schedule import Schedule
from automix.vocabulary import Operator

CARD_NAME = "README.md"

_ENVIRONMENT = "AutoMix/MixSchedule-v0"

# Where the Hub has the same images; other sources are named, but not linked.
_HUB_DATASETS: Mapping[DataSource, str] = MappingProxyType(
    {
        DataSource.CIFAR10: "uoft-cs/cifar10",
        DataSource.CIFAR100: "uoft-cs/cifar100",
        DataSource.MNIST: "ylecun/mnist",
        DataSource.FASHION_MNIST: "zalando-datasets/fashion_mnist",
        DataSource.SVHN: "ufldl-stanford/svhn",
    }
)

Json = dict[str, Any]


def write_card(run: Path, config: CardConfig, *, output: Path, overwrite: bool) -> Path:
    """Write the card of a finished replay or search to ``output``; return it.

    Raises:
        CheckpointError: the run is not finished, or has neither a classifier nor a policy.
        ConfigError: there is another file, and it may not be replaced.
    """
    text = make_card(run, config)
    if output.exists() and not overwrite and output.read_bytes() != text.encode():
        raise ConfigError(
            f"{output}: expected no file or --overwrite, got one that may hold your own words"
        )
    write_text(output, text)
    return output


def make_card(run: Path, config: CardConfig) -> str:
    """Return the card of a finished replay or search.

    Raises:
        CheckpointError: the run is not finished, or has neither a classifier nor a policy.
    """
    finished = FinishedRun(run)
    name = config.name or run.resolve().name
    kind = finished.result.get("kind")
    if kind == "replay":
        front, body = (
            _classifier_front(finished, name),
            classifier_text(finished, name, evaluations_of(run)),
        )
    elif kind == "search":
        front, body = _policy_front(finished, name), policy_text(finished, name)
    else:
        raise CheckpointError(
            f"{run}: expected the run of a replay, which has a classifier, or of a search, which "
            f"has a policy, got one of {kind!r}"
        )
    head = yaml.safe_dump(_license(config) | front, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{body}\n{_license_text(config)}\n"


def evaluations_of(run: Path) -> list[FinishedRun]:
    """Return the finished evaluations of this very classifier, those of most images first."""
    found = [FinishedRun(path.parent) for path in sorted(run.glob(f"*/{RESULT_NAME}"))]
    own = weights_hash(run)
    chosen = [
        evaluation
        for evaluation in found
        if evaluation.result.get("kind") == "evaluation"
        and evaluation.result["weights_hash"] == own
    ]
    return sorted(chosen, key=lambda evaluation: -int(evaluation.result["num_images"]))


def _license(config: CardConfig) -> Json:
    names = {"license_name": config.license_name, "license_link": config.license_link}
    return {"license": config.license} | {key: value for key, value in names.items() if value}


def _license_text(config: CardConfig) -> str:
    if config.license == "unknown":
        return (
            "## Licence\n\nNone was chosen yet: `unknown` is a placeholder. Choose one before you "
            "publish the weights (`automix card --license ...`), and mind what the images and "
            "initial weights allow."
        )
    return f"## Licence\n\n{config.license_name or config.license}"


def _classifier_front(run: FinishedRun, name: str) -> Json:
    config: ReplayConfig = run.config(ReplayConfig)
    schedule = Schedule.load(run.path / "schedule.json")
    operators = {segment.decision.operator for segment in schedule.segments}
    mixing = sorted(operator.value for operator in operators - {Operator.NONE})
    source = config.task.data.source
    front: Json = {
        "library_name": "automix",
        "pipeline_tag": "image-classification",
        "tags": ["automix", "image-classification", "data-augmentation", *mixing],
    }
    if source in _HUB_DATASETS:
        front["datasets"] = [_HUB_DATASETS[source]]
    metrics = _scores(run.result, evaluations_of(run.path))
    front["metrics"] = ["accuracy"]
    result = {
        "task": {"type": "image-classification", "name": "Image Classification"},
        "dataset": {
            "name": source.value,
            "type": _HUB_DATASETS.get(source, source.value),
            "split": "test",
        },
        "metrics": metrics,
    }
    front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _scores(result: Mapping[str, Any], evaluations: Sequence[FinishedRun]) -> list[Json]:
    """Return the metrics of the model index: of the replay, and of evaluations."""
    test = result["test"]
    scores = [
        ("accuracy", test["accuracy"], "top-1 accuracy"),
        ("nll", test["nll"], "negative log-likelihood (nats)"),
    ]
    for evaluation in evaluations:
        if found := evaluation.result.get("classification"):
            before, after = found["as_trained"], found["rescaled"]
            scores += [
                ("brier_score", before["brier"], "Brier score"),
                ("ece", before["ece"], "expected calibration error, 15 equal-width bins"),
                ("ece", after["ece"], "the same after temperature scaling on validation images"),
                ("accuracy", found["classes"]["worst"], "accuracy of the worst class"),
            ]
        if found := evaluation.result.get("corruptions"):
            scores.append(
                (
                    "error",
                    found["unnormalised_mean_corruption_error"],
                    f"unnormalised mean corruption error ({found['source']})",
                )
            )
        if found := evaluation.result.get("attacks"):
            levels = f"{found['settings']['epsilon'] * 255:g}/255"
            names = {"fgsm": "FGSM", "pgd": "PGD", "autoattack": "AutoAttack"}
            scores += [
                ("accuracy", found[key], f"accuracy under {title}, {levels}")
                for key, title in names.items()
                if key in found
            ]
    unique = {name: (kind, value) for kind, value, name in reversed(scores)}
    return [
        {"type": kind, "value": round(value, 6), "name": name}
        for name, (kind, value) in reversed(unique.items())
    ]


def _policy_front(run: FinishedRun, name: str) -> Json:
    config: SearchConfig = run.config(SearchConfig)
    rewards = [
        episode["total_reward"]
        for episode in run.result["episodes"][-config.agent.episodes_per_rollout :]
    ]
    mean = sum(rewards) / len(rewards)
    deviation = (sum((reward - mean) ** 2 for reward in rewards) / len(rewards)) ** 0.5
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"name": _ENVIRONMENT, "type": _ENVIRONMENT},
        "metrics": [
            {
                "type": "mean_reward",
                "value": f"{mean:.4f} +/- {deviation:.4f}",
                "name": f"mean reward of the last {len(rewards)} episodes of learning",
            }
        ],
    }
    return {
        "library_name": "automix",
        "pipeline_tag": "reinforcement-learning",
        "tags": [
            "automix",
            _ENVIRONMENT,
            "reinforcement-learning",
            "stable-baselines3",
            "data-augmentation",
        ],
        "model-index": [{"name": name, "results": [result]}],
    }
