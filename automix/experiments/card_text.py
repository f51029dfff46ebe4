"""What a model card says below its front matter, in Markdown."""

from collections.abc import Sequence
from pathlib import Path

from automix.experiments.config import ReplayConfig, SearchConfig
from automix.experiments.evaluate import summary
from automix.experiments.finished import FinishedRun
from automix.schedule import Schedule

_STANDINGS = 5


def classifier_text(run: FinishedRun, name: str, evaluations: Sequence[FinishedRun]) -> str:
    """Return the body of the card of a classifier."""
    config: ReplayConfig = run.config(ReplayConfig)
    result, data = run.result, config.task.data
    test = result["test"]
    found = [line for evaluation in evaluations for line in summary(evaluation.result).splitlines()]
    labels = "all" if data.labels_per_class is None else data.labels_per_class
    parts = [
        f"# {_escaped(name)}",
        f"A `{config.task.model.name}` that classifies images of {data.source.value}, trained by "
        "[AutoMix](#how-to-get-it-again) with the mixing schedule below.",
        "## Results",
        _table(
            ("test split", "value"),
            [
                ("accuracy", f"{test['accuracy']:.4f}"),
                ("NLL, nats", f"{test['nll']:.4f}"),
                (
                    "calibrated NLL, nats (temperature fitted on these images)",
                    f"{test['calibrated_nll']:.4f}",
                ),
                ("images", str(test["num_images"])),
            ],
        ),
        *(
            ["From `automix evaluate`:", "\n".join(f"- {line}" for line in dict.fromkeys(found))]
            if found
            else ["Nothing else was evaluated yet: `automix evaluate` does."]
        ),
        "## Data",
        f"Source `{data.source.value}`, fingerprint `{result['data']}` (a hash of every pixel, "
        f"label and split), split seed {data.split_seed}, training images per class: {labels}.",
        "## Schedule",
        _schedule(run.path / "schedule.json"),
        "## How to get it again",
        f"Seed {config.seed}, {result['steps']} optimiser steps.",
        *_commands(run),
        "To use it, with `classifier.json` and `classifier.safetensors` in the folder `RUN`:",
        "```python\nfrom pathlib import Path\n\n"
        "import torch\n\n"
        "from automix.experiments.classifier_file import load_classifier\n\n"
        'model, facts = load_classifier(Path("RUN"))\n'
        "mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (facts.mean, facts.std))\n"
        "logits = model((images - mean) / std)  # images: (B, C, H, W) in [0, 1]\n"
        "facts.class_names[logits[0].argmax()]\n```",
        "## Limits",
        "- One training with one seed: the spread between seeds is not in these numbers.\n"
        "- Evaluated on the test split of the data that it was trained on; nothing is known of "
        "other images.\n"
        "- Which class gets which probability was not checked for fairness between people.",
    ]
    return "\n\n".join(parts) + "\n"


def policy_text(run: FinishedRun, name: str) -> str:
    """Return the body of the card of a policy."""
    config: SearchConfig = run.config(SearchConfig)
    result, cost = run.result, run.result["cost"]
    rows = [
        (
            _escaped(standing["name"]) + (" (constant)" if standing["is_constant"] else ""),
            str(standing["num_seeds"]),
            "" if (mean := standing["mean_calibrated_nll"]) is None else f"{mean:.4f}",
        )
        for standing in result["standings"][:_STANDINGS]
    ]
    parts = [
        f"# {_escaped(name)}",
        "A policy that decides segment by segment how a classifier's training images are mixed, "
        "learned by PPO in the environment `AutoMix/MixSchedule-v0`, and the schedule that was "
        "selected. The schedule is what to use; the policy is how it was looked for.",
        "## Result",
        f"Selected among learned schedules and every operator held constant: "
        f"**{_escaped(result['selected'])}**.",
        _schedule(run.path / "schedule.json"),
        "First places of the selection, retrained with fresh seeds:",
        _table(("schedule", "seeds", "calibrated NLL, nats"), rows),
        "## Data and task",
        f"Source `{config.task.data.source.value}`, classifier `{config.task.model.name}`, "
        f"{config.task.trainer.epochs} epochs of batches of {config.task.trainer.batch_size}, "
        f"{config.environment.num_segments} segments; rewarded with "
        f"`{config.environment.potential}` on the reward split.",
        "## How to get it again",
        f"Seed {config.seed}, {config.agent.episodes} episodes; {cost['trainings']} trainings in "
        f"all, {cost['search_seconds'] + cost['selection_seconds']:.0f} s of wall clock.",
        *_commands(run),
        "To use the schedule: `automix replay schedule.json`, or `ScheduledMix` in your own loop.",
        "## Limits",
        "- One search with one seed on one data set and one network: another may find another "
        "schedule.\n"
        "- The reward is that of short trainings; a long one may want another schedule.\n"
        "- The selection favours the selected schedule a little; compare on fresh seeds.",
    ]
    return "\n\n".join(parts) + "\n"


def _schedule(path: Path) -> str:
    schedule = Schedule.load(path)
    ends = [segment.start for segment in schedule.segments[1:]] + [1.0]
    rows = [
        (f"{segment.start:.1%} to {end:.1%}", segment.decision.label())
        for segment, end in zip(schedule.segments, ends, strict=True)
    ]
    text = _table(("part of the training", "mixing"), rows)
    return f"{text}\n\nDecisions: `{schedule.decision_hash()}`."


def _commands(run: FinishedRun) -> list[str]:
    source = run.source
    versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    # Four spaces, whatever is in the command.
    return [f"    {source.command}", f"Versions: {versions}."]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]<>()#|!" else letter for letter in flat)
