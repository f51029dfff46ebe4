"""One training step: fetch, mix, forward, loss, backward, update, average.

Shape suffixes: B batch, C channels, H rows, W columns, K classes.

Shape suffixes: B images of a micro-batch, C channels, H rows, W columns, K classes.
"""

import contextlib
import copy
import dataclasses
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from automix.configuration.task import TrainerConfig
from automix.data.batches import BatchKey, TrainingBatch, TrainingBatches
from automix.errors import ConfigError
from automix.mixing import StepKey, is_mixed, mix_step
from automix.operator_info import OPERATOR_FACTS
from automix.operators.types import MixedBatch
from automix.random_streams import Stream, derived_seed
from automix.saliency.sources import CachedSource, CacheState
from automix.schedule import Decision
from automix.training.distributed import copy_from_main_, current_world, sum_over_processes_
from automix.training.optimizer import (
    AveragedWeights,
    learning_rate_at,
    make_optimizer,
    reset_optimizer_,
)

_AUTOCAST_TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# `share_buffers_` does it after the step, for the averaged weights too. Newer releases of PyTorch
# have a new name for the option, and warn of the old one.
_DISTRIBUTED_OPTIONS: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)
# Generators of these devices cannot be addressed by an index.
_WITHOUT_INDEXED_GENERATORS = ("cpu", "mps")


class TrainedNetwork:
    """Runs forward passes whose backward passes train ``model``.

    Attributes:
        model: the raw module, whose weights are initialized, averaged, saved and evaluated, and
            which saliency is asked about.
    """

    def __init__(self, model: nn.Module, config: TrainerConfig) -> None:
        """Wrap ``model``, which is on its device, as ``config`` and the processes ask for.

        Raises:
            ConfigError: the device cannot compute in the precision that is asked for.
        """
        self.model = model
        self._device = next(model.parameters()).device
        self._dtype = _AUTOCAST_TYPES[config.precision]
        self._check_precision(config.precision)
        self._format = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(memory_format=self._format)
        self._distributed = _distributed(model, self._device)
        forward = self._distributed or model
        self._forward: Callable[..., Tensor] = torch.compile(forward) if config.compile else forward
        self._statistics = _batch_norm_statistics(model)
        statistics = {id(tensor) for tensor in self._statistics}
        self._other_buffers = [b for b in model.buffers() if id(b) not in statistics]

    def laid_out(self, images_BCHW: Tensor) -> Tensor:
        """Return the images in the memory format of the network."""
        return images_BCHW.contiguous(memory_format=self._format)

    def logits(self, images_BCHW: Tensor, *, key: StepKey) -> Tensor:
        """Return (B, K) logits, in the precision of the training.

        Dropout and stochastic depth draw from the global generators. They are seeded for this pass
        and put back after it, so that a pass is a function of its arguments and the weights.

        Args:
            images_BCHW: float32.
            key: names what the network itself draws.
        """
        seed = derived_seed(key.seed, Stream.NETWORK, rank=key.rank, step=key.step)
        with _seeded(self._device, seed), self.autocast():
            return self._forward(images_BCHW)

    @contextlib.contextmanager
    def accumulating(self, *, is_last: bool) -> Iterator[None]:
        """Keep gradients of a micro-batch in this process, unless it is the last of its step."""
        if self._distributed is None or is_last:
            yield
        else:
            with self._distributed.no_sync():
                yield

    @torch.no_grad()
    def share_buffers_(self) -> None:
        """Make the buffers of all processes equal, as the gradients make the weights.

        The statistics of batch norm become their means over the processes, other buffers those of
        rank 0. Between steps every process then holds the same bits, and one can save for all.
        """
        size = current_world().size
        if size == 1:
            return
        if self._statistics:
            flat = torch.cat([tensor.flatten() for tensor in self._statistics])
            means = sum_over_processes_(flat).div_(size)
            parts = torch.split(means, [tensor.numel() for tensor in self._statistics])
            for tensor, part in zip(self._statistics, parts, strict=True):
                tensor.copy_(part.view_as(tensor))
        copy_from_main_(self._other_buffers)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Run a block in the precision of the training."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _check_precision(self, precision: str) -> None:
        # Of some devices torch says so by an exception, of others by a warning and float32.
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            try:
                with self.autocast():
                    return
            except (RuntimeError, UserWarning) as error:
                reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"task.trainer.precision: expected a precision of {self._device}, got {precision!r}: "
            f"{reason}"
        )


def _distributed(model: nn.Module, device: torch.device) -> DistributedDataParallel | None:
    if current_world().size == 1:
        return None
    return DistributedDataParallel(
        model,
        device_ids=None if device.type == "cpu" else [device],
        gradient_as_bucket_view=True,
        **_DISTRIBUTED_OPTIONS,
    )


def _batch_norm_statistics(model: nn.Module) -> list[Tensor]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    pairs = [(norm.running_mean, norm.running_var) for norm in norms]
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    # 5 microseconds on a CPU, so there is no need to ask whether the network draws at all.
    indexed = [] if device.type in _WITHOUT_INDEXED_GENERATORS else [device]
    with torch.random.fork_rng(devices=indexed, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class FedBatch:
    """A micro-batch as the network gets it.

    Attributes:
        images: (B, C, H, W) float32.
        targets: (B, K) float32 soft targets.
        labels: (B,) int64, the images' own classes.
        key: names the draws of this step.
        is_mixed: whether anything was mixed.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    key: StepKey
    is_mixed: bool


class FeedState(TypedDict):
    """What a micro-batch carries from step to step: the last mixed batch and saliency maps."""

    previous: dict[str, Tensor | None] | None
    saliency: CacheState | None


class MicroBatchFeed:
    """Feeds the micro-batch of one number, step by step.

    Each number has its own line of mixed batches (for operators that mix with the one before) and
    its own saliency maps: what comes before micro-batch 1 of a step is micro-batch 1 of the step
    before. The same holds for the shares of several processes.
    """

    def __init__(
        self,
        batches: TrainingBatches,
        saliency: CachedSource,
        network: TrainedNetwork,
        *,
        number: int,
    ) -> None:
        """Feed micro-batch ``number`` of every step.

        Args:
            batches: where images come from.
            saliency: where operators that need saliency get it from; of this feed alone.
            network: what is fed.
            number: from 0.
        """
        self._batches = batches
        self._saliency = saliency
        self._network = network
        self._number = number
        self._previous: MixedBatch | None = None
        self._held: tuple[BatchKey, TrainingBatch] | None = None

    def next(self, decision: Decision, *, seed: int, step: int) -> FedBatch:
        """Return the micro-batch of optimizer step ``step``, mixed as ``decision`` says."""
        batch_number = step // self._saliency.refresh_every
        self._saliency.hold(batch_number)
        batch_key = self._batches.layout.key(seed, batch_number, self._number)
        images, labels, _ = self._batch(batch_key)
        images = self._network.laid_out(images)
        key = StepKey(seed=seed, step=step, rank=batch_key.share)
        if not is_mixed(decision, key):
            targets = nn.functional.one_hot(labels, self._batches.num_classes).float()
            return FedBatch(images=images, targets=targets, labels=labels, key=key, is_mixed=False)
        mixed = mix_step(
            decision,
            images,
            labels,
            key=key,
            num_classes=self._batches.num_classes,
            model=self._network.model,
            saliency=self._saliency,
            previous=self._previous,
        )
        # Kept only as long as the operator that needs it goes on.
        needs_previous = OPERATOR_FACTS[decision.operator].needs_previous
        self._previous = mixed if needs_previous else None
        return FedBatch(
            images=mixed.images, targets=mixed.targets, labels=labels, key=key, is_mixed=True
        )

    def reset(self) -> None:
        """Forget everything that was carried."""
        self._previous = self._held = None
        self._saliency.clear()

    def state_dict(self) -> FeedState:
        """Return the state, without copying tensors."""
        return FeedState(
            previous=dataclasses.asdict(self._previous) if self._previous else None,
            saliency=self._saliency.state_dict(),
        )

    def load_state_dict(self, state: FeedState, *, device: torch.device) -> None:
        """Continue from a state; checkpoints are read into main memory."""
        self.reset()
        self._previous = _previous_on(device, state["previous"])
        self._saliency.load_state_dict(state["saliency"], device=device)

    def _batch(self, key: BatchKey) -> TrainingBatch:
        if self._saliency.refresh_every == 1:
            return self._batches.batch(key)
        if self._held is None or self._held[0] != key:
            self._held = key, self._batches.batch(key)
        return self._held[1]


def micro_batch_feeds(
    batches: TrainingBatches, saliency: CachedSource, network: TrainedNetwork
) -> list[MicroBatchFeed]:
    """Return the feeds of all micro-batches of a step of this process.

    Args:
        batches: where images come from.
        saliency: names the source and how often it is asked; each feed keeps maps of its own.
        network: what is fed.
    """
    return [
        MicroBatchFeed(
            batches,
            CachedSource(saliency.source, refresh_every=saliency.refresh_every),
            network,
            number=number,
        )
        for number in range(batches.layout.accumulation)
    ]


def _previous_on(
    device: torch.device, values: dict[str, Tensor | None] | None
) -> MixedBatch | None:
    if values is None:
        return None
    moved = {name: None if value is None else value.to(device) for name, value in values.items()}
    return MixedBatch(**moved)  # type: ignore[arg-type]


class UpdatesState(TypedDict):
    """What `WeightUpdates` continue from; ``average`` and ``scaler`` are empty where unused."""

    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]


class WeightUpdates:
    """Updates the weights of a model, step by step.

    Attributes:
        optimizer: SGD or AdamW.
        average: averaged weights, if any.
    """

    def __init__(self, model: nn.Module, config: TrainerConfig) -> None:
        """Update ``model``, the raw module on its device."""
        self.optimizer = make_optimizer(model, config)
        self.average = (
            AveragedWeights(model, copy.deepcopy(model), decay=config.ema_decay)
            if config.ema_decay
            else None
        )
        self._model = model
        self._config = config
        device = next(model.parameters()).device
        self._scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self._first_scaler = self._scaler.state_dict()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of the mean loss of one of the micro-batches of a step."""
        if self._config.accumulation > 1:
            loss = loss / self._config.accumulation
        torch.autograd.backward(self._scaler.scale(loss))

    def step(self, *, progress: float) -> None:
        """Change the weights by the gradients of a step, and forget the gradients.

        A step whose float16 gradients overflowed changes nothing but the scale of the losses after
        it; the host never learns of it.
        """
        if self._config.max_grad_norm is not None:
            # What is clipped are the gradients of all micro-batches and processes, unscaled.
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._config.max_grad_norm)
        rate = learning_rate_at(self._config, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()

    def take_average(self, step: int) -> None:
        """Take the weights after optimizer step number ``step`` into the average, if any."""
        if self.average:
            self.average.update_(step)

    def reset(self) -> None:
        """Start over in place, averages from the current weights."""
        self.optimizer.zero_grad()
        reset_optimizer_(self.optimizer)
        self._scaler.load_state_dict(self._first_scaler)
        if self.average:
            self.average.copy_()

    def state_dict(self) -> UpdatesState:
        """Return the state, without copying tensors. Reads the scale from the device."""
        return UpdatesState(
            average=self.average.model.state_dict() if self.average else {},
            optimizer=self.optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
        )

    def load_state_dict(self, state: UpdatesState) -> None:
        """Continue from a state of the same configuration."""
        self.optimizer.zero_grad()
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.model.load_state_dict(state["average"])
