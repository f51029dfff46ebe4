"""From a `TaskConfig` to the objects that train."""

import functools

import torch
from torch import Generator, nn

from automix.data.batch_sources import training_batches
from automix.data.config import DataConfig
from automix.data.loading import load_data
from automix.data.placement import holding_device
from automix.data.splits import SearchData
from automix.data.training_batches import BatchLayout
from automix.errors import ConfigError
from automix.models.config import ModelConfig
from automix.models.registry import build_model, reinitialise_
from automix.random_streams import Stream, stream_generator
from automix.saliency.cache import CachedSource
from automix.saliency.registry import build_source
from automix.training.config import TrainerConfig
from automix.training.distributed import current_world
from automix.training.task import TaskConfig
from automix.training.trainer import ClassifierTrainer


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
        generator=stream_generator(0, Stream.INITIALISATION),
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
    """Return a trainer of a freshly initialised classifier on the training split of ``data``.

    Processes that have joined a world build one each, and train together.

    Raises:
        ConfigError: the batch cannot be shared by processes and micro-batches.
    """
    device = device or training_device()
    placement = task.data.placement
    data = data.to(holding_device(data.num_bytes, device=device, placement=placement))
    shape = {"num_classes": data.num_classes, "channels": data.image_shape[0]}
    model = build_model(
        task.model, generator=stream_generator(seed, Stream.INITIALISATION), **shape
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
        initialise=functools.partial(_initialise_, task.model, shape),
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


def _initialise_(
    config: ModelConfig, shape: dict[str, int], model: nn.Module, generator: Generator
) -> None:
    reinitialise_(model, config, generator=generator, **shape)
