"""Model cards of classifiers and policies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml

from automix.configuration.data import DataSource
from automix.configuration.task import ReplayConfig
from automix.errors import CheckpointError, ConfigError
from automix.escapes import markdown, markdown_code, markdown_span
from automix.evaluation.calibration import TEMPERATURE_FROM
from automix.experiments.common.cost import runs_text
from automix.experiments.common.equal_schedules import row_label
from automix.experiments.common.run_folder import RESULT_NAME
from automix.experiments.common.saved_classifier import weights_hash
from automix.experiments.config import CardConfig, SearchConfig
from automix.experiments.evaluate.run import summarize_evaluation
from automix.experiments.report.finished_runs import FinishedRun
from automix.files import write_text
from automix.operator_info import Operator
from automix.readers import MAX_JSON_BYTES, read_bytes
from automix.schedule import Schedule

CARD_NAME = "README.md"

_ENVIRONMENT = "AutoMix/MixSchedule-v0"
# Rows of the selection that the card of a policy shows.
_STANDINGS = 5
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
    # Made first: where the run is not finished, the old card stays as it was.
    text = make_card(run, config)
    if (
        output.exists()
        and not overwrite
        and (read_bytes(output, limit=MAX_JSON_BYTES) != text.encode())
    ):
        raise ConfigError(
            f"{output}: expected no file or --overwrite, got one that may hold your own words"
        )
    write_text(output, text)
    return output


def make_card(run: Path, config: CardConfig) -> str:
    """Return the card of a finished replay or search."""
    finished = FinishedRun(run)
    name = config.name or run.resolve().name
    if finished.kind == "replay":
        evaluations = evaluations_of(run)
        front = _classifier_front(finished, name, evaluations)
        body = classifier_text(finished, name, evaluations)
    elif finished.kind == "search":
        front, body = _policy_front(finished, name), policy_text(finished, name)
    else:
        raise CheckpointError(
            f"{run}: expected the run of a replay, which has a classifier, or of a search, which "
            f"has a policy, got one of {finished.kind!r}"
        )
    # The Hub reads the front matter; it is YAML even where names hold colons or quotes.
    head = yaml.safe_dump(_license(config) | front, sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{body}\n{_license_text(config)}\n"


def evaluations_of(run: Path) -> list[FinishedRun]:
    """Return the finished evaluations of this very classifier, those of most images first."""
    runs = [FinishedRun(path.parent) for path in sorted(run.glob(f"*/{RESULT_NAME}"))]
    # An evaluation may be of weights that were replaced since.
    weights = weights_hash(run)
    current = [
        it for it in runs if it.kind == "evaluation" and it.result["weights_hash"] == weights
    ]
    return sorted(current, key=lambda evaluation: -int(evaluation.result["num_images"]))


def _license(config: CardConfig) -> Json:
    names = {"license_name": config.license_name, "license_link": config.license_link}
    return {"license": config.license} | {key: value for key, value in names.items() if value}


def _license_text(config: CardConfig) -> str:
    if config.license == "unknown":
        return (
            "## License\n\nNone was chosen yet: `unknown` is a placeholder. Choose one before you "
            "publish the weights (`automix card --license ...`), and mind what the images and "
            "initial weights allow."
        )
    return f"## License\n\n{config.license_name or config.license}"


def _classifier_front(run: FinishedRun, name: str, evaluations: Sequence[FinishedRun]) -> Json:
    config: ReplayConfig = run.config(ReplayConfig)
    schedule = Schedule.load(run.path / "schedule.json")
    # Tags of the Hub: what it was mixed with can be searched for.
    mixing = sorted(name.value for name in schedule.operators if name is not Operator.NONE)
    source = config.task.data.source
    tags = ["image-classification", "data-augmentation", *mixing]
    datasets = {"datasets": [_HUB_DATASETS[source]]} if source in _HUB_DATASETS else {}
    result = {
        "task": {"type": "image-classification", "name": "Image Classification"},
        "dataset": {
            "name": source.value,
            "type": _HUB_DATASETS.get(source, source.value),
            "split": "test",
        },
        "metrics": _scores(run.result, evaluations),
    }
    return _front(name, "image-classification", tags, result, **datasets, metrics=["accuracy"])


def _front(name: str, pipeline: str, tags: Sequence[str], result: Json, **fields: Any) -> Json:
    """Return the front matter as the Hub documents it: the model index holds what it ranks by."""
    return {
        "library_name": "automix",
        "pipeline_tag": pipeline,
        "tags": ["automix", *tags],
        **fields,
        "model-index": [{"name": name, "results": [result]}],
    }


def _scores(result: Mapping[str, Any], evaluations: Sequence[FinishedRun]) -> list[Json]:
    """Return the metrics of the model index: of the replay, and of evaluations."""
    test = result["test"]
    scores = [
        ("accuracy", test["accuracy"], "top-1 accuracy"),
        ("nll", test["nll"], "negative log-likelihood (nats)"),
    ]
    for evaluation in evaluations:
        if part := evaluation.result.get("classification"):
            before, after = part["as_trained"], part["rescaled"]
            scores += [
                ("brier_score", before["brier"], "Brier score"),
                ("ece", before["ece"], "expected calibration error, 15 equal-width bins"),
                ("ece", after["ece"], f"ECE after scaling, {TEMPERATURE_FROM}"),
                ("accuracy", part["classes"]["worst"], "accuracy of the worst class"),
            ]
        if part := evaluation.result.get("several_labels"):
            score = part["mean_average_precision"]
            scores.append(("mean_average_precision", score, "mean average precision"))
        if part := evaluation.result.get("corruptions"):
            title = f"unnormalized mean corruption error ({part['source']})"
            scores.append(("error", part["unnormalized_mean_corruption_error"], title))
        if part := evaluation.result.get("attacks"):
            levels = f"{part['settings']['epsilon'] * 255:g}/255"
            names = {"fgsm": "FGSM", "pgd": "PGD", "autoattack": "AutoAttack"}
            scores += [
                ("accuracy", part[key], f"accuracy under {title}, {levels}")
                for key, title in names.items()
                if key in part
            ]
    # Of several evaluations the first has most images: read backwards, its numbers stay.
    unique = {name: (kind, value) for kind, value, name in reversed(scores)}
    return [
        {"type": kind, "value": round(value, 6), "name": name}
        for name, (kind, value) in reversed(unique.items())
    ]


def _policy_front(run: FinishedRun, name: str) -> Json:
    config: SearchConfig = run.config(SearchConfig)
    # Of the last rollout: earlier episodes followed older policies.
    rewards = [
        episode["total_reward"]
        for episode in run.result["episodes"][-config.agent.episodes_per_rollout :]
    ]
    if not rewards:
        return {"library_name": "automix", "tags": ["automix", "data-augmentation"]}
    # As Stable-Baselines3 reports it: mean and population standard deviation over episodes.
    mean, deviation = np.mean(rewards), np.std(rewards)
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
    tags = [_ENVIRONMENT, "reinforcement-learning", "stable-baselines3", "data-augmentation"]
    return _front(name, "reinforcement-learning", tags, result)


def classifier_text(run: FinishedRun, name: str, evaluations: Sequence[FinishedRun]) -> str:
    """Return the body of the card of a classifier."""
    config: ReplayConfig = run.config(ReplayConfig)
    result, data = run.result, config.task.data
    test = result["test"]
    lines: dict[str, None] = {}
    for evaluation in evaluations:
        # Evaluations of more images came first; lines they share are said once.
        lines |= dict.fromkeys(summarize_evaluation(evaluation.result).splitlines())
    evaluated = ["Nothing else was evaluated yet: `automix evaluate` does."]
    if lines:
        evaluated = ["From `automix evaluate`:", "\n".join(f"- {line}" for line in lines)]
    factory = config.task.model.factory
    named = f', factory="{factory}"' if factory else ""
    # Scores with few labels per class do not compare with those on the whole dataset.
    labels = "all" if data.labels_per_class is None else data.labels_per_class
    parts = [
        f"# {markdown(name)}",
        f"A `{config.task.model.title}` that classifies images of {data.source.value}, trained by "
        "[AutoMix](#how-to-get-it-again) with the mixing schedule below.",
        "## Results",
        _table(
            ("test split", "value"),
            [
                ("accuracy", f"{test['accuracy']:.4f}"),
                ("NLL, nats", f"{test['nll']:.4f}"),
                (f"calibrated NLL, nats ({TEMPERATURE_FROM})", _calibrated(result)),
                ("images", str(test["num_images"])),
            ],
        ),
        *evaluated,
        "## Data",
        f"Source `{data.source.value}`, fingerprint {markdown_span(result['data'])} (a hash of "
        f"every pixel, label and split), split seed {data.split_seed}, "
        f"training images per class: {labels}.",
        "## Schedule",
        _schedule(run.path / "schedule.json"),
        "## How to get it again",
        f"Seed {config.seed}, {result['steps']} optimizer steps.",
        *_commands(run),
        "To use it, with `classifier.json` and `classifier.safetensors` in the folder `RUN`:",
        "```python\nfrom pathlib import Path\n\n"
        "import torch\n\n"
        "from automix.experiments.common.saved_classifier import load_classifier\n\n"
        f'model, facts = load_classifier(Path("RUN"){named})\n'
        "mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (facts.mean, facts.std))\n"
        "logits = model((images - mean) / std)  # images: (B, C, H, W) in [0, 1]\n"
        "facts.class_names[logits[0].argmax()]\n```",
        "## Limits",
        "- One training run with one seed: the spread between seeds is not in these numbers.\n"
        "- Evaluated on the test split of the data that it was trained on; nothing is known of "
        "other images.\n"
        "- Which class gets which probability was not checked for fairness between people.",
    ]
    return "\n\n".join(parts) + "\n"


def _calibrated(result: Mapping[str, Any]) -> str:
    # Fitted on the test images themselves, the number would not be the one of that name.
    value = f"{result['test']['calibrated_nll']:.4f}"
    return value if result.get("selection") else "not given: no selection images"


def policy_text(run: FinishedRun, name: str) -> str:
    """Return the body of the card of a policy."""
    config: SearchConfig = run.config(SearchConfig)
    result, cost = run.result, run.result["cost"]
    rows = [
        (
            markdown(row_label(standing)) + (" (constant)" if standing["is_constant"] else ""),
            str(standing["num_seeds"]),
            "" if (mean := standing["mean_calibrated_nll"]) is None else f"{mean:.4f}",
        )
        for standing in result["standings"][:_STANDINGS]
    ]
    parts = [
        f"# {markdown(name)}",
        _what_it_is(result["episodes"], config),
        "## Result",
        f"Selected among learned schedules, schedules that ship and every operator held constant: "
        f"**{markdown(result['selected'])}**.",
        _schedule(run.path / "schedule.json"),
        f"{markdown(result['verdict']['sentence'])}.",
        "First places of the selection, on the images that it chose by:",
        _table(("schedule", "seeds", "calibrated NLL, nats"), rows),
        "## Data and task",
        f"Source `{config.task.data.source.value}`, classifier `{config.task.model.title}`, "
        f"{config.task.trainer.epochs} epochs of batches of {config.task.trainer.batch_size}, "
        f"{config.environment.num_segments} segments; rewarded with "
        f"`{config.environment.potential}` on the reward split.",
        "## How to get it again",
        f"Seed {config.seed}; {cost['trainings']} training runs ({runs_text(cost)}), "
        f"{cost['seconds']:.0f} s of wall clock.",
        *_commands(run),
        "To use the schedule: `automix replay schedule.json`, or `ScheduledMix` in your own loop.",
        "## Limits",
        "- One search with one seed on one dataset and one network: another may find another "
        "schedule.\n"
        "- The reward is that of short training runs; a long one may want another schedule.\n"
        "- The places of the selection favor its winner a little; the sentence above does not: it "
        "is of other images and seeds.",
    ]
    return "\n\n".join(parts) + "\n"


def _what_it_is(episodes: Sequence[object], config: SearchConfig) -> str:
    if not episodes:
        return "A mixing schedule, selected by races of training runs; nothing was learned."
    how = "PPO" if config.searcher == "ppo" else f"`{config.searcher}`"
    return (
        "A policy that decides segment by segment how a classifier's training images are mixed, "
        f"learned by {how} in the environment `{_ENVIRONMENT}`, and the schedule that was "
        "selected. The schedule is what to use; the policy is how it was looked for."
    )


def _schedule(path: Path) -> str:
    schedule = Schedule.load(path)
    ends = [segment.start for segment in schedule.segments[1:]] + [1.0]
    rows = [
        (f"{segment.start:.1%} to {end:.1%}", segment.mixture.label())
        for segment, end in zip(schedule.segments, ends, strict=True)
    ]
    text = _table(("part of the training run", "mixing"), rows)
    return f"{text}\n\nDecisions: `{schedule.decision_hash()}`."


def _commands(run: FinishedRun) -> list[str]:
    source = run.source
    versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    return [markdown_code(source.command), f"Versions: {markdown(versions)}."]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
