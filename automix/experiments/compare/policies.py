"""Policies in a comparison: closed loops on its paired seeds. Imported only where one is named."""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from agents.rlmix import image_features, load_actor, sampled
from automix.data.splits import Dataset
from automix.errors import ConfigError
from automix.experiments.common.run_folder import ProgressBar
from automix.experiments.common.run_logs import Journal
from automix.experiments.common.training_pool import SplitName, TrainingOutcome
from automix.experiments.compare.schedule_specs import per_image_decision
from automix.experiments.config import CompareConfig
from automix.experiments.replay.policy import PolicySource
from automix.files import sha256_of
from automix.operator_info import Operator
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.schedule import Schedule
from automix.training.metrics import EvalMetrics
from automix.training.mixers.actor_critic import ActorCritic
from automix.training.mixers.gate import Gate
from automix.training.mixers.learned import LearnedMixer
from automix.training.trainer import ClassifierTrainer, build_trainer
from envs.rlmix.config import RLMixConfig
from envs.rlmix.env import NUM_PERCENTILES, RLMixEnv, mix, observed, see, train_on

_NO_SIMILARITY = RLMixConfig(reward="validation_gain")


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """A training run that a policy decided, and the schedule that it turned out to be."""

    outcome: TrainingOutcome
    schedule: Schedule | None = None  # None where the policy decides about images


class ClosedLoops:
    """The closed loops of one policy, each with its own training seed, one after the other."""

    # Names the policy in a journal; the operators that it chooses between.
    identity: str
    operators: tuple[Operator, ...]

    def __init__(self, config: CompareConfig, data: Dataset) -> None:
        self._config, self._data = config, data
        self._trainer: ClassifierTrainer | None = None

    def follow(self, trainer: ClassifierTrainer) -> Schedule | None:
        """Train from the start to the end; return the schedule if there was one."""
        raise NotImplementedError

    def train_all(
        self, splits: Sequence[SplitName], *, journal: Journal, title: str
    ) -> list[PolicyRun]:
        """Return the runs of all seeds; those that are in the journal are not trained again."""
        runs = []
        with ProgressBar(title, self._config.num_seeds) as bar:
            for index in range(self._config.num_seeds):
                seed = derived_seed(self._config.seed, Stream.COMPARISON, step=index)
                key = f"{self.identity}/{seed}/{'+'.join(splits)}"
                if journal.get(key) is None:
                    run = self.train(seed, splits)
                    plain = run.schedule.to_plain() if run.schedule else None
                    journal.add(key, dataclasses.asdict(run.outcome) | {"schedule": plain})
                kept = journal.results[key]
                plain = kept["schedule"]
                schedule = None if plain is None else Schedule.from_plain(plain)
                runs.append(PolicyRun(TrainingOutcome.from_plain(kept), schedule))
                bar.advance()
        return runs

    def train(self, seed: int, splits: Sequence[SplitName]) -> PolicyRun:
        """Train once, as the policy decides; its seconds are those of what it looks at, too."""
        task, data = self._config.task, self._data.seen
        if self._trainer is None:
            self._trainer = build_trainer(task, data, seed=seed)
        else:
            self._trainer.reset(seed)
        trainer = self._trainer
        started = time.perf_counter()
        schedule = self.follow(trainer)
        seconds = time.perf_counter() - started
        metrics = self._metrics(trainer, splits)
        return PolicyRun(
            outcome=TrainingOutcome(
                metrics=metrics,
                seconds=seconds,
                diverged=any(math.isnan(it.nll) for it in metrics.values()),
            ),
            schedule=schedule,
        )

    def _metrics(
        self, trainer: ClassifierTrainer, splits: Sequence[SplitName]
    ) -> dict[SplitName, EvalMetrics]:
        metrics: dict[SplitName, EvalMetrics] = {}
        # The test images choose nothing, not even a temperature: it is that of the selection split.
        selection = trainer.evaluate(self._data.seen.selection)
        for split in splits:
            if split == "test":
                test = self._data.test
                metrics[split] = trainer.evaluate(test, temperature=selection.temperature)
            else:
                metrics[split] = selection
        return metrics


def closed_loops(text: str, config: CompareConfig, data: Dataset) -> ClosedLoops:
    """Return the closed loops that a description of a comparison names.

    Raises:
        AutoMixError: what it names is missing, or does not fit the data.
    """
    kind, _, argument = text.partition(":")
    match kind:
        case "policy":
            return PolicyLoops(Path(argument), config, data)
        case "rlmix":
            return RLMixLoops(argument, config, data)
        case _:
            return PerImageLoops(text, config, data)


class PolicyLoops(ClosedLoops):
    """The policy of a search, which decides before every segment."""

    def __init__(self, folder: Path, config: CompareConfig, data: Dataset) -> None:
        """Read the policy of a search.

        Raises:
            AutoMixError: there is none, or it does not fit the data.
        """
        super().__init__(config, data)
        self._source = PolicySource.load(folder)
        self.identity = self._source.identity["policy"]
        self.operators = self._source.operators
        num_steps = config.task.trainer.total_steps(len(data.seen.train))
        # Refused here rather than after the training runs of the others.
        self._source.decider(config.task, data.seen, num_steps=num_steps)

    def follow(self, trainer: ClassifierTrainer) -> Schedule:
        """Train as the policy decides, and return what it decided."""
        data = self._data.seen
        decider = self._source.decider(self._config.task, data, num_steps=trainer.total_steps)
        while trainer.step < trainer.total_steps:
            mixture, stop = decider.decide(trainer, limit=trainer.total_steps)
            decider.take_in(trainer.train(mixture, num_steps=stop - trainer.step))
        return decider.schedule


class RLMixLoops(ClosedLoops):
    """RL-Mix's agent, or random percentiles in its environment, which decide for every image."""

    operators = (Operator.RMIX,)

    def __init__(self, argument: str, config: CompareConfig, data: Dataset) -> None:
        """Read the agent that `automix rlmix` learned in a folder.

        ``random`` is none, in the default environment; ``random@FOLDER`` none in that of an agent.

        Raises:
            AutoMixError: there is none, or it does not fit the task.
        """
        super().__init__(config, data)
        self._actor, self._rlmix = None, RLMixConfig()
        before, _, after = argument.partition("@")
        is_random = before == "random"
        if folder := after if is_random else argument:
            actor, facts = load_actor(Path(folder) / "policy")
            self._actor, self._rlmix = None if is_random else actor, facts.rlmix
            if facts.num_classes != data.seen.num_classes:
                raise ConfigError(
                    f"rlmix:{argument}: expected an agent for {data.seen.num_classes} classes, got "
                    f"one for {facts.num_classes}"
                )
        weights = [] if self._actor is None else list(self._actor.state_dict().values())
        parts = [value.numpy().tobytes() for value in weights]
        self.identity = sha256_of(self._rlmix.content_hash().encode(), *parts)[:16]
        # Refused here rather than after the training runs of the others.
        RLMixEnv(config.task, self._rlmix, data=data.seen)

    def follow(self, trainer: ClassifierTrainer) -> None:
        """Train with percentiles drawn from the agent's probabilities, which stay random."""
        while trainer.step < trainer.total_steps:
            seen = see(trainer, self._rlmix)
            batch, device = len(seen.logits), seen.logits.device
            logits = torch.zeros(1, batch, NUM_PERCENTILES, device=device)
            if self._actor is not None:
                parts = observed(seen, self._rlmix)
                rows = {name: value.flatten()[None] for name, value in parts.items()}
                logits = self._actor.to(device)(image_features(rows, batch))
            generator = stream_generator(
                trainer.seed, Stream.POLICY, step=trainer.step, device=device
            )
            mixed = mix(seen, sampled(logits, generator)[0])
            # Without a similarity, which nobody reads here.
            train_on(trainer, seen, mixed, _NO_SIMILARITY)


class PerImageLoops(ClosedLoops):
    """A gate or an actor-critic, which learns about the images of a decision in each run anew."""

    def __init__(self, text: str, config: CompareConfig, data: Dataset) -> None:
        """Read ``gate:OPERATOR[:STRENGTH]``, or the same with ``a2c``.

        Raises:
            ConfigError: the operator does not fit.
        """
        super().__init__(config, data)
        self._decision = per_image_decision(text)
        self._is_gate = text.startswith("gate:")
        self.identity, self.operators = text, (self._decision.operator,)

    def follow(self, trainer: ClassifierTrainer) -> None:
        """Train with what the policy makes of each mixed batch."""
        stages = trainer.training_step
        stages.mixer = self._mixer(trainer)
        try:
            trainer.train(self._decision, num_steps=trainer.total_steps)
        finally:
            stages.mixer = None

    def _mixer(self, trainer: ClassifierTrainer) -> LearnedMixer:
        num_classes, device = self._data.seen.num_classes, trainer.device
        if not self._is_gate:
            return ActorCritic(num_classes, seed=trainer.seed, device=device)
        reward = self._data.seen.reward
        images = trainer.prepared(reward.read(0, len(reward)).to(device))
        labels = reward.labels.to(device)
        size = min(trainer.batch_size, len(reward))

        def validation(number: int) -> tuple[Tensor, Tensor]:
            generator = stream_generator(
                trainer.seed, Stream.MIXER, epoch=1, step=number, device=device
            )
            chosen = torch.randperm(len(labels), generator=generator, device=device)[:size]
            return images.index_select(0, chosen), labels.index_select(0, chosen)

        return Gate(num_classes, validation, seed=trainer.seed, device=device)
