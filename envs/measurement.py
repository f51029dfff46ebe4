"""What is measured of a classifier after each segment; everything about it stays as it was."""

from automix.data.batches import BatchPreparer
from automix.data.splits import SearchData
from automix.saliency.registry import build_source
from automix.schedule import Decision
from automix.training.build import training_device
from automix.training.metrics import TrainMetrics
from automix.training.optimization import learning_rate_at
from automix.training.task import TaskConfig
from automix.training.trainer import ClassifierTrainer
from envs.config import EnvironmentConfig, ObservationGroup
from envs.probe import MixedProbe, fixed_sample
from envs.readings import Reading


class Measurement:
    """Takes readings of a training: as much as observation and reward need, and no more."""

    def __init__(self, task: TaskConfig, config: EnvironmentConfig, data: SearchData) -> None:
        """Choose the training images that are evaluated, and mix those that are probed."""
        self._config = config
        self._reward = data.reward
        self._clean = fixed_sample(data.train, config.probe_images)
        self._probe = _make_probe(task, config, data) if config.needs_mixed_probe else None

    def reading(
        self,
        trainer: ClassifierTrainer,
        *,
        train: TrainMetrics | None,
        decision: Decision | None,
        before: Reading | None,
    ) -> Reading:
        """Return what is known of a training now.

        Args:
            trainer: evaluated with its averaged weights, if it has any.
            train: means over the last segment; None before the first.
            decision: of the last segment; None before the first.
            before: the reading after the segment before.
        """
        config = self._config
        rate = learning_rate_at(trainer.config, trainer.progress)
        return Reading(
            progress=trainer.progress,
            learning_rate_share=rate / trainer.config.peak_learning_rate,
            reward=trainer.evaluate(self._reward),
            clean=trainer.evaluate(self._clean) if config.needs_clean_metrics else None,
            train=train,
            decision=decision,
            probe=self._losses(trainer),
            similarity=self._similarity(trainer, decision, before),
        )

    def _losses(self, trainer: ClassifierTrainer) -> tuple[float, ...]:
        if self._probe is None or ObservationGroup.PROBE not in self._config.observation:
            return ()
        return self._probe.losses(trainer.evaluated_model.eval())

    def _similarity(
        self, trainer: ClassifierTrainer, decision: Decision | None, before: Reading | None
    ) -> float:
        if self._probe is None or not self._config.rewards_similarity:
            return 0.0
        so_far = before.similarity if before else 0.0
        if decision is None:
            return so_far
        return so_far + self._probe.similarity(trainer.evaluated_model.eval(), decision)


def _make_probe(task: TaskConfig, config: EnvironmentConfig, data: SearchData) -> MixedProbe:
    preparer = BatchPreparer(data.statistics, task.data.augment, device=training_device())
    batch = fixed_sample(data.train, config.probe_batch)
    is_observed = ObservationGroup.PROBE in config.observation
    return MixedProbe(
        preparer.evaluation(batch.images),
        batch.labels.to(preparer.device),
        num_classes=data.num_classes,
        operators=config.operators if is_observed else (),
        saliency=build_source(task.saliency),
    )
