"""ClassifierTrainer: the one training loop, by segments in search, from end to end in replay."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import torch
from torch import Generator, Tensor, nn

from automix.configuration.data import DataConfig
from automix.configuration.task import TaskConfig
from automix.data.batches import BatchLayout, BatchPreparer
from automix.data.load import holding_device, load_data, training_batches
from automix.data.splits import SearchData, Split
from automix.errors import CheckpointError
from automix.files import check_fields
from automix.mixture import Mixing, Mixture
from automix.models.build import build_model, reinitialize_
from automix.models.patches import options_for
from automix.network_outputs import logits_of
from automix.random_streams import Stream, stream_generator
from automix.saliency.gradient import evaluation_mode
from automix.saliency.sources import build_source
from automix.schedule import Schedule, exact_fraction
from automix.training.criterion import saliency_loss
from automix.training.distributed import current_world, join_parts, part_of
from automix.training.metrics import CleanMetrics, EvalMetrics, RunningSums, TrainMetrics
from automix.training.scores import both_metrics, eval_metrics, evaluation_scores
from automix.training.step import StepState, TrainingStep

EVALUATION_BATCH = 1024


class TrainerState(StepState):
    """Everything a training run needs to resume bit for bit: tensors and plain values."""

    seed: int
    step: int
    world_size: int
    precision: str


class ClassifierTrainer:
    """Trains one classifier on one split, mixing batches as it is told.

    Every random draw derives from (seed, epoch, step): calling `train` twice with n steps gives
    the same bits as once with 2n, and there is no generator state to save.

    In a world of several processes each of them has a trainer with the same arguments, and calls
    the same methods in the same order; between calls all hold the same weights.

    Attributes:
        training_step: does one optimizer step; its stages are there for loops of another kind.
        step: optimizer steps done.
        seed: names the initialization, the order of the images and all draws.
    """

    def __init__(
        self,
        training_step: TrainingStep,
        preparer: BatchPreparer,
        *,
        initialize: Callable[[nn.Module, Generator], None],
        seed: int,
    ) -> None:
        """Take ownership of the model of ``training_step``, which is initialized from ``seed``.

        Args:
            training_step: of the model, batches and configuration to train with.
            preparer: normalizes the uint8 images that the model is evaluated on.
            initialize: gives the model its initial values in place, from a generator.
            seed: names the initialization, the order of the images and all draws.
        """
        layout = training_step.batches.layout
        self.training_step = training_step
        self.config = training_step.config
        self.model = training_step.model
        self.device = next(self.model.parameters()).device
        self.batch_size = layout.batch_size
        self.steps_per_epoch = layout.steps_per_epoch
        self.total_steps = training_step.total_steps
        self._preparer = preparer
        self._initialize = initialize
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start over from ``seed`` in place: nothing is reloaded, allocated or compiled again."""
        self.seed = seed
        self.step = 0
        self._initialize(self.model, stream_generator(seed, Stream.INITIALIZATION))
        # After the weights: the moving average starts at their initial values.
        self.training_step.reset()

    @property
    def progress(self) -> float:
        """Fraction of the training run done, in [0, 1]."""
        return self.step / self.total_steps

    @property
    def evaluated_model(self) -> nn.Module:
        """The module that is evaluated: averaged weights if there are any."""
        averaged = self.training_step.averaged
        return averaged.model if averaged else self.model

    @overload
    def train(self, mixing: Mixing, *, num_steps: int) -> TrainMetrics: ...

    @overload
    def train(self, mixing: Mixing, *, num_steps: int, sums: RunningSums) -> None: ...

    def train(
        self, mixing: Mixing, *, num_steps: int, sums: RunningSums | None = None
    ) -> TrainMetrics | None:
        """Do ``num_steps`` optimizer steps, mixing as ``mixing`` says.

        The host waits for the device once, at the end, to read the metrics.

        Args:
            mixing: of all these steps, a decision or a mixture of several.
            num_steps: at most as many as remain.
            sums: takes in loss and accuracies instead: nothing is read and the host does not wait.

        Raises:
            ValueError: the training run would go past its end.
        """
        if self.step + num_steps > self.total_steps:
            remaining = self.total_steps - self.step
            raise ValueError(f"expected at most {remaining} more steps, got {num_steps}")
        totals = RunningSums(self.device) if sums is None else sums
        started, mixture = time.perf_counter(), Mixture.of(mixing)
        self.training_step.train_mode()
        for _ in range(num_steps):
            self.training_step(mixture, totals, seed=self.seed, step=self.step)
            # After the step: one that raised is not counted.
            self.step += 1
        totals.seconds += time.perf_counter() - started
        return totals.read() if sums is None else None

    def replay(
        self, schedule: Schedule, *, longest: int | None = None
    ) -> Iterator[tuple[Mixture, TrainMetrics]]:
        """Train to the end as ``schedule`` says, stretch by stretch.

        A stretch ends where the mixture changes, or after ``longest`` steps; where it ends
        changes what is reported, not what is trained.

        Yields:
            The mixture of each stretch and the means over it.
        """
        while self.step < self.total_steps:
            mixture = schedule.mixture_at(self.progress)
            limit = min(self.total_steps, self.step + (longest or self.total_steps))
            stop = schedule.holds_until(self.step, limit=limit, num_steps=self.total_steps)
            yield mixture, self.train(mixture, num_steps=stop - self.step)

    def evaluate(self, split: Split, *, temperature: float | None = None) -> EvalMetrics:
        """Evaluate on ``split``; the host waits for the device once.

        Args:
            split: at least one image.
            temperature: that of the calibrated NLL, fitted on other images; by default it is
                fitted on ``split`` itself.
        """
        logits, labels = self.logits(split), split.labels.to(self.device)
        fitted = None if temperature is None else logits.new_tensor(temperature)
        scores = evaluation_scores(logits, labels, temperature=fitted)
        return eval_metrics(scores.tolist(), num_images=len(split))

    def evaluate_both(
        self, split: Split, training: Split | None
    ) -> tuple[EvalMetrics, CleanMetrics | None]:
        """Evaluate on ``split`` and on unmixed training images; the host waits once for both."""
        splits = [split, training] if training is not None else [split]
        return both_metrics(self.logits(*splits)[None], splits)[0]

    @torch.no_grad()
    def logits(self, *splits: Split) -> Tensor:
        """Return (N, K) float32 logits of the evaluated weights on ``splits``, in order.

        Always in 32 bits: what is evaluated is what is saved, whatever it was trained with. Each
        of several processes passes its part of the images through the network, every image once,
        and gets the logits of all.
        """
        model, count = self.evaluated_model, sum(map(len, splits))
        here = part_of(count)
        # With fewer images than processes some have none, but join the others with no rows.
        parts = [torch.empty(0, self.training_step.batches.num_classes, device=self.device)]
        with evaluation_mode(model):
            for start in range(here.start, here.stop, EVALUATION_BATCH):
                stored = _read(splits, start, min(start + EVALUATION_BATCH, here.stop))
                parts.append(logits_of(model(self.prepared(stored))).float())
        return join_parts(torch.cat(parts), count)

    def prepared(self, images_BCHW: Tensor) -> Tensor:
        """Return stored uint8 images as the network is evaluated on them."""
        return self.training_step.in_memory_format(self._preparer.evaluation(images_BCHW))

    def saliency_of(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return (B, H, W) maps of stored uint8 images under the current weights."""
        images = self._preparer.evaluation(images_BCHW)
        return self.training_step.saliency(self.model, images, labels_B.to(self.device))

    def state_dict(self) -> TrainerState:
        """Return the state, without copying tensors: copy it before training on.

        Every process must call this; what rank 0 gets is complete, and all that is to be saved.
        """
        return {
            "seed": self.seed,
            "step": self.step,
            "world_size": self.training_step.batches.layout.world_size,
            "precision": self.training_step.precision,
            **self.training_step.state_dict(),
        }

    def load_state_dict(self, state: TrainerState) -> None:
        """Resume from a state of a trainer with the same configuration and data.

        Raises:
            CheckpointError: it is the state of another number of processes or micro-batches, or of
                another precision; this trainer is as it was.
        """
        layout = self.training_step.batches.layout
        check_fields(state, {"seed": (int,), "step": (int,)}, source="checkpoint")
        if state["world_size"] != layout.world_size:
            raise CheckpointError(
                f"checkpoint: expected a training run of {layout.world_size} process"
                f"{'es' if layout.world_size > 1 else ''}, got one of {state['world_size']}; "
                "continue it with as many"
            )
        if len(state["shares"]) != layout.world_size * layout.accumulation:
            raise CheckpointError(
                f"checkpoint: expected a training run with accumulation {layout.accumulation}, "
                f"got {len(state['shares']) / layout.world_size:g}"
            )
        # What null stands for depends on the device.
        if state["precision"] != self.training_step.precision:
            raise CheckpointError(
                f"checkpoint: expected a training run in {self.training_step.precision}, as on "
                f"{self.device}, got one in {state['precision']}; continue it on its own device"
            )
        self.seed, self.step = state["seed"], state["step"]
        self.training_step.load_state_dict(state)


def _read(splits: Sequence[Split], start: int, stop: int) -> Tensor:
    """Return stored images ``start`` to ``stop - 1`` of ``splits``, counted through."""
    parts, first = [], 0
    for split in splits:
        if start < first + len(split) and stop > first:
            parts.append(split.read(max(start - first, 0), min(stop - first, len(split))))
        first += len(split)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def segment_steps(total_steps: int, starts: Sequence[float], index: int) -> tuple[int, int]:
    """Return the first step of segment ``index`` and the first step after it.

    A step belongs to the last segment whose start, a fraction of the training, it has reached,
    which is the rule that `Schedule.mixture_at(step / total_steps)` follows: both give the same
    bits in search and replay.
    """
    bounds = [exact_fraction(start) for start in (*starts, 1.0)[index : index + 2]]
    first, stop = (math.ceil(bound * total_steps) for bound in bounds)
    return first, stop


def training_device() -> torch.device:
    """Return the accelerator of this process if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def load_search_data(config: DataConfig) -> SearchData:
    """Load the splits a search may see; there is no test split among them."""
    return load_data(config).for_search()


def build_trainer(
    task: TaskConfig, data: SearchData, *, seed: int, device: torch.device | None = None
) -> ClassifierTrainer:
    """Return a trainer of a freshly initialized classifier on the training split of ``data``.

    Processes that have joined a world build one each, and train together.

    Raises:
        ConfigError: the batch cannot be shared by processes and micro-batches, or the patch size
            of operators is not known or does not divide the images.
    """
    device = device or training_device()
    placement = task.data.placement
    data = data.to(holding_device(data.num_bytes, device=device, placement=placement))
    channels, *size = data.image_shape
    shape: dict[str, Any] = {
        "num_classes": data.num_classes,
        "channels": channels,
        "image_size": tuple(size),
    }
    model = build_model(
        task.model, generator=stream_generator(seed, Stream.INITIALIZATION), **shape
    )
    world = current_world()
    layout = BatchLayout.fitting(
        len(data.train),
        task.trainer.batch_size,
        accumulation=task.trainer.accumulation,
        rank=world.rank,
        world_size=world.size,
    )
    num_steps = task.trainer.epochs * layout.steps_per_epoch
    batches, preparer = training_batches(
        data, task.data, layout, num_steps=num_steps, device=device
    )
    training_step = TrainingStep(
        model.to(device),
        batches,
        saliency=build_source(task.saliency, loss=saliency_loss(task.trainer)),
        refresh_every=task.saliency.refresh_every,
        options=options_for(task.operators, model, image_size=data.image_shape[1:]),
        config=task.trainer,
    )
    return ClassifierTrainer(
        training_step,
        preparer,
        initialize=lambda model, generator: reinitialize_(
            model, task.model, generator=generator, **shape
        ),
        seed=seed,
    )
