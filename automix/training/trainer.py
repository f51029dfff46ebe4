"""ClassifierTrainer: the one training loop, by segments in search, from end to end in replay."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import TypedDict

import torch
from torch import Generator, Tensor, nn

from automix.configuration.data import DataConfig
from automix.configuration.task import ModelConfig, TaskConfig, TrainerConfig
from automix.data.batches import BatchLayout, BatchPreparer, TrainingBatches
from automix.data.load import holding_device, load_data, training_batches
from automix.data.splits import SearchData, StoredImages
from automix.errors import CheckpointError, ConfigError
from automix.evaluation.calibration import accuracy, fit_temperature, nll
from automix.evaluation.inference import evaluation_mode
from automix.models.build import build_model, reinitialize_
from automix.random_streams import Stream, stream_generator
from automix.saliency.sources import CachedSource, build_source
from automix.schedule import Decision, Schedule
from automix.training.distributed import current_world, gather_on_main, join_parts, part_of
from automix.training.metrics import (
    EvalMetrics,
    RunningSums,
    TrainMetrics,
    smooth_labels,
    soft_cross_entropy,
)
from automix.training.step import (
    FedBatch,
    FeedState,
    TrainedNetwork,
    UpdatesState,
    WeightUpdates,
    micro_batch_feeds,
)

_EVALUATION_BATCH = 1024


class TrainerState(TypedDict):
    """Everything a training run needs to continue bit for bit: tensors and plain values.

    Attributes:
        seed: of the training.
        step: optimizer steps done.
        world_size: processes that train together.
        model: weights and buffers.
        updates: state of averages, optimizer and loss scale.
        shares: what each share of a step carries to the next, by number of the share.
    """

    seed: int
    step: int
    world_size: int
    model: dict[str, Tensor]
    updates: UpdatesState
    shares: list[FeedState]


class ClassifierTrainer:
    """Trains one classifier on one split, mixing batches as it is told.

    Every random draw derives from (seed, epoch, step): calling `train` twice with n steps gives
    the same bits as once with 2n, and there is no generator state to save.

    In a world of several processes each of them has a trainer with the same arguments, and calls
    the same methods in the same order; between calls all hold the same weights.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: TrainingBatches,
        preparer: BatchPreparer,
        *,
        initialize: Callable[[nn.Module, Generator], None],
        saliency: CachedSource,
        config: TrainerConfig,
        seed: int,
    ) -> None:
        """Take ownership of ``model``, which is initialized anew from ``seed``.

        Args:
            model: maps (B, C, H, W) float32 images to (B, K) logits; on its device already.
            batches: training batches on the model's device.
            preparer: normalizes the uint8 images that the model is evaluated on.
            initialize: gives the model its initial values in place, from a generator.
            saliency: where operators that need saliency get it from; a batch is held for the
                steps from one refresh to the next.
            config: length, optimizer and averaging.
            seed: names the initialization, the order and all draws.
        """
        self.config = config
        self.model = model
        self.device = next(model.parameters()).device
        self.batch_size = batches.layout.batch_size
        self.steps_per_epoch = batches.layout.steps_per_epoch
        self.total_steps = config.epochs * self.steps_per_epoch
        self._layout = batches.layout
        self._preparer = preparer
        self._initialize = initialize
        self._saliency = saliency.source
        self._num_classes = batches.num_classes
        self.network = TrainedNetwork(model, config)
        self._feeds = micro_batch_feeds(batches, saliency, self.network)
        self._updates = WeightUpdates(model, config)
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Start over from ``seed`` in place: nothing is reloaded, allocated or compiled again."""
        self.seed = seed
        self.step = 0
        for feed in self._feeds:
            feed.reset()
        self._initialize(self.model, stream_generator(seed, Stream.INITIALIZATION))
        self._updates.reset()

    @property
    def progress(self) -> float:
        """Share of the training done, in [0, 1]."""
        return self.step / self.total_steps

    @property
    def evaluated_model(self) -> nn.Module:
        """The module that is evaluated: averaged weights if there are any."""
        return self._updates.average.model if self._updates.average else self.model

    def train(self, decision: Decision, *, num_steps: int) -> TrainMetrics:
        """Run ``num_steps`` optimizer steps, mixing as ``decision`` says.

        The host waits for the device once, at the end.

        Raises:
            ValueError: the training would run past its end.
        """
        sums = RunningSums(self.device)
        self.run(decision, sums, num_steps=num_steps)
        return sums.read()

    def run(self, decision: Decision, sums: RunningSums, *, num_steps: int) -> None:
        """Do as `train`, but add to ``sums``: the host does not wait for the device at all.

        Raises:
            ValueError: the training would run past its end.
        """
        if self.step + num_steps > self.total_steps:
            left = self.total_steps - self.step
            raise ValueError(f"expected at most {left} more steps, got {num_steps}")
        started = time.perf_counter()
        self.model.train()
        for _ in range(num_steps):
            self._train_step(decision, sums)
        sums.seconds += time.perf_counter() - started

    def replay(
        self, schedule: Schedule, *, longest: int | None = None
    ) -> Iterator[tuple[Decision, TrainMetrics]]:
        """Train to the end as ``schedule`` says, stretch by stretch.

        A stretch ends where the decision changes, or after ``longest`` steps; where it ends
        changes what is reported, not what is trained.

        Yields:
            The decision of each stretch and the means over it.
        """
        while self.step < self.total_steps:
            decision = schedule.at(self.progress)
            limit = min(self.total_steps, self.step + (longest or self.total_steps))
            stop = schedule.holds_until(self.step, limit=limit, num_steps=self.total_steps)
            yield decision, self.train(decision, num_steps=stop - self.step)

    @torch.no_grad()
    def logits(self, split: StoredImages) -> Tensor:
        """Return (N, K) float32 logits of the evaluated weights on ``split``, in order.

        Always in 32 bits: what is evaluated is what is saved, whatever it was trained with. Each
        of several processes passes its part of the images through the network, every image once,
        and gets the logits of all.
        """
        model, count = self.evaluated_model, len(split)
        here = part_of(count)
        parts = [torch.empty(0, self._num_classes, device=self.device)]
        with evaluation_mode(model):
            for start in range(here.start, here.stop, _EVALUATION_BATCH):
                stored = split.read(start, min(start + _EVALUATION_BATCH, here.stop))
                images = self.network.laid_out(self._preparer.evaluation(stored))
                parts.append(model(images).float())
        return join_parts(torch.cat(parts), count)

    def evaluate(self, split: StoredImages) -> EvalMetrics:
        """Evaluate on ``split``; the host waits for the device once."""
        logits = self.logits(split)
        labels = split.labels.to(self.device)
        # Mixing makes a network underconfident, which plain NLL punishes and one number repairs.
        # Fitted to these n images themselves, it makes their NLL too small by about 1 / (2 n) nats.
        temperature = fit_temperature(logits, labels)
        values = torch.stack(
            (
                nll(logits, labels),
                nll(logits / temperature, labels),
                accuracy(logits, labels),
                temperature,
            )
        ).tolist()
        return EvalMetrics(
            nll=values[0],
            calibrated_nll=values[1],
            accuracy=values[2],
            temperature=values[3],
            num_images=len(split),
        )

    def saliency_of(self, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
        """Return (B, H, W) maps of stored uint8 images under the current weights."""
        images = self._preparer.evaluation(images_BCHW)
        return self._saliency(self.model, images, labels_B.to(self.device))

    def state_dict(self) -> TrainerState:
        """Return the state, without copying tensors: copy it before training on.

        Every process must call this; what rank 0 gets is complete, and all that is to be saved.
        """
        own = [feed.state_dict() for feed in self._feeds]
        by_rank = gather_on_main(own)
        return TrainerState(
            seed=self.seed,
            step=self.step,
            world_size=self._layout.world_size,
            model=self.model.state_dict(),
            updates=self._updates.state_dict(),
            shares=[state for of_number in zip(*by_rank, strict=True) for state in of_number],
        )

    def load_state_dict(self, state: TrainerState) -> None:
        """Continue from a state of a trainer with the same configuration and data.

        Raises:
            CheckpointError: it is the state of another number of processes or micro-batches; this
                trainer is as it was.
        """
        processes, found = self._layout.world_size, state["world_size"]
        if found != processes:
            raise CheckpointError(
                f"checkpoint: expected a training run of {processes} process"
                f"{'es' if processes > 1 else ''}, got one of {found}; continue it with as many"
            )
        if len(state["shares"]) != processes * len(self._feeds):
            raise CheckpointError(
                f"checkpoint: expected a training run with accumulation {len(self._feeds)}, "
                f"got {len(state['shares']) / processes:g}"
            )
        self.seed, self.step = state["seed"], state["step"]
        self.model.load_state_dict(state["model"])
        self._updates.load_state_dict(state["updates"])
        for number, feed in enumerate(self._feeds):
            share = number * self._layout.world_size + self._layout.rank
            feed.load_state_dict(state["shares"][share], device=self.device)

    def fed_batch(self, decision: Decision, *, micro_batch: int = 0) -> FedBatch:
        """Return a micro-batch of the next step, mixed as ``decision`` says."""
        return self._feeds[micro_batch].next(decision, seed=self.seed, step=self.step)

    def train_on(self, fed: FedBatch) -> Tensor:
        """Do the next step on a batch that someone else has mixed; with accumulation 1 only.

        Returns:
            The loss, a scalar on the device; the host does not wait for it.
        """
        self.model.train()
        _, loss = self._pass(fed)
        self.finish_step()
        return loss.detach()

    def loss(self, logits_BK: Tensor, fed: FedBatch) -> Tensor:
        """Return the training loss of a micro-batch, a float32 scalar."""
        targets = smooth_labels(fed.targets, self.config.label_smoothing)
        return soft_cross_entropy(logits_BK, targets)

    def finish_step(self) -> None:
        """Change the weights by the gradients that they have, and go on to the next step."""
        self._updates.step(progress=self.progress)
        self.network.share_buffers_()
        self._updates.take_average(self.step)
        self.step += 1

    def _train_step(self, decision: Decision, sums: RunningSums) -> None:
        for number in range(len(self._feeds)):
            fed = self.fed_batch(decision, micro_batch=number)
            with self.network.accumulating(is_last=number == len(self._feeds) - 1):
                logits, loss = self._pass(fed)
            sums.add(loss, logits, fed.labels, is_mixed=fed.is_mixed)
        self.finish_step()

    def _pass(self, fed: FedBatch) -> tuple[Tensor, Tensor]:
        """Add the gradients of a micro-batch; return its logits and loss."""
        logits = self.network.logits(fed.images, key=fed.key)
        loss = self.loss(logits, fed)
        self._updates.backward(loss)
        return logits, loss


def segment_steps(total_steps: int, num_segments: int, index: int) -> tuple[int, int]:
    """Return the first step of segment ``index`` and the first step after it.

    A step belongs to the segment whose share of the training it lies in, which is the rule that
    `Schedule.at(step / total_steps)` follows: both give the same bits in search and replay.
    """
    return -(-index * total_steps // num_segments), -(-(index + 1) * total_steps // num_segments)


def training_device() -> torch.device:
    """Return the accelerator of this process if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def load_search_data(config: DataConfig) -> SearchData:
    """Load the splits a search may see; there is no test split among them."""
    return load_data(config).for_search()


def check_model(task: TaskConfig, data: SearchData) -> None:
    """Build the classifier and pass two images through it, before anything is written.

    A network of a library may be unknown to the version that is installed, or refuse images of
    this size or batches of one.

    Raises:
        ConfigError: there is no such classifier, or it does not take such batches.
    """
    batch = min(2, task.trainer.batch_size, len(data.train))
    model = build_model(
        task.model,
        num_classes=data.num_classes,
        channels=data.image_shape[0],
        generator=stream_generator(0, Stream.INITIALIZATION),
    )
    try:
        # Dropout draws from the global generator.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(torch.zeros(batch, *data.image_shape))
        if getattr(logits, "shape", None) != (batch, data.num_classes):
            got = getattr(logits, "shape", type(logits).__name__)
            raise ValueError(f"its output is no logits of {data.num_classes} classes, but {got}")
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        shape = " x ".join(map(str, data.image_shape))
        raise ConfigError(
            f"task.model.name: expected a classifier that trains on batches of {batch} images of "
            f"{shape}, got {task.model.name!r}: {reason}"
        ) from None


def build_trainer(
    task: TaskConfig, data: SearchData, *, seed: int, device: torch.device | None = None
) -> ClassifierTrainer:
    """Return a trainer of a freshly initialized classifier on the training split of ``data``.

    Processes that have joined a world build one each, and train together.

    Raises:
        ConfigError: the batch cannot be shared by processes and micro-batches.
    """
    device = device or training_device()
    placement = task.data.placement
    data = data.to(holding_device(data.num_bytes, device=device, placement=placement))
    shape = {"num_classes": data.num_classes, "channels": data.image_shape[0]}
    model = build_model(
        task.model, generator=stream_generator(seed, Stream.INITIALIZATION), **shape
    )
    layout = _layout(task.trainer, len(data.train))
    num_steps = task.trainer.epochs * layout.steps_per_epoch
    batches, preparer = training_batches(
        data, task.data, layout, num_steps=num_steps, device=device
    )
    return ClassifierTrainer(
        model.to(device),
        batches,
        preparer,
        initialize=functools.partial(_initialize_, task.model, shape),
        saliency=CachedSource(
            build_source(task.saliency), refresh_every=task.saliency.refresh_every
        ),
        config=task.trainer,
        seed=seed,
    )


def _layout(config: TrainerConfig, num_images: int) -> BatchLayout:
    world = current_world()
    return BatchLayout.fitting(
        num_images,
        config.batch_size,
        accumulation=config.accumulation,
        rank=world.rank,
        world_size=world.size,
    )


def _initialize_(
    config: ModelConfig, shape: dict[str, int], model: nn.Module, generator: Generator
) -> None:
    reinitialize_(model, config, generator=generator, **shape)
