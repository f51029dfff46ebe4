"""Replay: one training that follows a schedule or a policy, evaluated once on the test split."""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from automix.data.loading import load_data
from automix.data.splits import DataSet, Split
from automix.errors import CheckpointError, ConfigError
from automix.experiments.applied import AppliedDecisions
from automix.experiments.classifier_file import ClassifierFacts, save_classifier
from automix.experiments.config import ReplayConfig
from automix.experiments.cost import CostEstimate, estimate_cost
from automix.experiments.replay_loop import ReplayLoop
from automix.experiments.replay_source import SCHEDULE_NAME, ReplaySource
from automix.experiments.replay_state import ReplayCheckpoints
from automix.experiments.runs import RunFolder, versions
from automix.files import write_json
from automix.schedule import Decision, decisions_hash
from automix.training.build import build_trainer, check_model
from automix.training.distributed import current_world, on_main
from automix.training.trainer import ClassifierTrainer

DECISIONS_NAME = "decisions.json"
_LOG = logging.getLogger(__name__)


def replay(config: ReplayConfig, source: ReplaySource, output: Path) -> dict[str, Any]:
    """Train as ``source`` says in ``output``; return the result, also if it is there already.

    An interrupted run in ``output`` is continued from its newest checkpoint, bit for bit. The
    classifier (averaged weights, if any) is written as safetensors.

    Raises:
        AutoMixError: data or folder do not fit, or the training diverged.
        KeyboardInterrupt: it was asked to stop; what was trained is saved.
    """
    data = load_data(config.task.data)
    check_model(config.task, data.seen)
    validation = _validation(config, data)
    torch.set_num_threads(config.compute.threads)
    trainer = build_trainer(config.task, data.seen, seed=config.seed)
    decider = source.decider(config.task, data.seen, num_steps=trainer.total_steps)
    with contextlib.ExitStack() as stack:
        run = RunFolder(output, config)
        on_main(lambda: _enter(stack, run))
        if (finished := on_main(lambda: _result_of(run))) is not None:
            return finished
        on_main(lambda: source.claim(output))
        checkpoints = ReplayCheckpoints(
            output,
            keep=config.checkpoints.keep,
            identity={
                "configuration": config.content_hash(),
                **source.identity,
                "data": data.fingerprint,
                "number of processes": str(current_world().size),
            },
        )
        loop = ReplayLoop(
            config, trainer, decider, run, checkpoints=checkpoints, validation=validation
        )
        loop.run()
        schedule = decider.schedule()
        applied = check_decisions(
            loop.applied, schedule.decisions(trainer.total_steps), where=output
        )
        if config.weights == "best" and (best := loop.best) is not None:
            weights = on_main(lambda: checkpoints.load_best(best.step))
            trainer.evaluated_model.load_state_dict(weights)
        result = _result(config, data, trainer, loop)
        result |= {
            "follows": source.identity,
            "schedule_hash": schedule.decision_hash(),
            "decisions_hash": applied,
        }

        def finish() -> None:
            decisions = {"hash": applied, "runs": loop.applied.to_plain()}
            write_json(output / DECISIONS_NAME, decisions)
            # Of a policy, it is known only now.
            schedule.save(output / SCHEDULE_NAME)
            save_classifier(output, _facts(config, data, result), trainer.evaluated_model)
            run.finish(result)

        on_main(finish)
        return result


def predict_cost(config: ReplayConfig, source: ReplaySource) -> CostEstimate:
    """Return what `replay` will cost, measured on a few steps; nothing is written."""
    return estimate_cost(
        config.task,
        load_data(config.task.data).seen,
        operators=source.operators,
        num_trainings=1,
        evaluations_per_training=2 + config.validations,
        compute=config.compute.model_copy(update={"workers": 1}),
    )


def check_decisions(
    applied: AppliedDecisions, wanted_decisions: Sequence[Decision], *, where: Path
) -> str:
    """Return the hash of the decisions that the steps followed.

    Args:
        applied: what the trainer was told, step by step.
        wanted_decisions: what the schedule says for every step of the training.
        where: folder of the run.

    Raises:
        CheckpointError: they are not the same.
    """
    found = applied.hash()
    wanted = decisions_hash(wanted_decisions)
    if found != wanted:
        raise CheckpointError(
            f"{where}: expected steps that followed the decisions {wanted} of the schedule, "
            f"got {found}; start anew in an empty folder"
        )
    return found


def _enter(stack: contextlib.ExitStack, run: RunFolder) -> None:
    stack.enter_context(run)


def _result_of(run: RunFolder) -> dict[str, Any] | None:
    return run.read_result() if run.is_finished else None


def _validation(config: ReplayConfig, data: DataSet) -> Split | None:
    """Return the selection split, or None where there is none.

    Raises:
        ConfigError: there is none, and the best weights on it are wanted.
    """
    if len(data.seen.selection):
        return data.seen.selection
    if config.weights == "best":
        raise ConfigError(
            "weights: expected last without a selection split (task.data.selection-size 0), got "
            "best"
        )
    if config.validations:
        _LOG.info("no selection split: nothing is evaluated during training, no best is kept")
    return None


def _result(
    config: ReplayConfig, data: DataSet, trainer: ClassifierTrainer, loop: ReplayLoop
) -> dict[str, Any]:
    selection = data.seen.selection
    step = trainer.total_steps
    if config.weights == "best" and loop.best is not None:
        step = loop.best.step
    return {
        "kind": "replay",
        "test": dataclasses.asdict(trainer.evaluate(data.test)),
        "selection": dataclasses.asdict(trainer.evaluate(selection)) if len(selection) else None,
        "best": loop.best.to_plain() if loop.best else None,
        "weights": {"which": config.weights, "step": step},
        "seed": config.seed,
        "steps": trainer.total_steps,
        "seconds": loop.seconds,
        "data": data.fingerprint,
    }


def _facts(config: ReplayConfig, data: DataSet, result: dict[str, Any]) -> ClassifierFacts:
    statistics = data.statistics
    return ClassifierFacts(
        model=config.task.model.model_copy(update={"weights": None}),
        class_names=data.class_names,
        image_shape=data.seen.image_shape,
        mean=statistics.mean,
        std=statistics.std,
        provenance={
            "config": config.content_hash(),
            "schedule": result["schedule_hash"],
            "data": data.fingerprint,
            "seed": str(config.seed),
            "step": str(result["weights"]["step"]),
            **versions(),
        },
    )
