"""From a `TaskConfig` to the objects that train."""

import functools

import torch
from torch import Generator, nn

from automix.data.batches import BatchPreparer
from automix.data.config import DataConfig
from automix.data.loading import load_data
from automix.data.placement import holding_device
from automix.data.splits import SearchData
from automix.models.config import ModelConfig
from automix.models.registry import build_model, reinitialise_
from automix.random_streams import Stream, stream_generator
from automix.saliency.registry import build_source
from automix.training.task import TaskConfig
from automix.training.trainer import ClassifierTrainer


def training_device() -> torch.device:
    """Return the accelerator of this process if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def load_search_data(config: DataConfig) -> SearchData:
    """Load the splits a search may see; there is no test split among them."""
    return load_data(config).for_search()


def build_trainer(
    task: TaskConfig, data: SearchData, *, seed: int, device: torch.device | None = None
) -> ClassifierTrainer:
    """Return a trainer of a freshly initialised classifier on the training split of ``data``."""
    device = device or training_device()
    placement = task.data.placement
    data = data.to(holding_device(data.num_bytes, device=device, placement=placement))
    shape = {"num_classes": data.num_classes, "channels": data.image_shape[0]}
    model = build_model(
        task.model, generator=stream_generator(seed, Stream.INITIALISATION), **shape
    )
    return ClassifierTrainer(
        model.to(device),
        data.train,
        BatchPreparer(data.statistics, task.data.augment, device=device),
        initialise=functools.partial(_initialise_, task.model, shape),
        saliency=build_source(task.saliency),
        config=task.trainer,
        seed=seed,
    )


def _initialise_(
    config: ModelConfig, shape: dict[str, int], model: nn.Module, generator: Generator
) -> None:
    reinitialise_(model, config, generator=generator, **shape)
