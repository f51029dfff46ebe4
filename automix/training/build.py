"""From a `TaskConfig` to the objects that train."""

import torch

from automix.data.batches import InputPipeline
from automix.data.config import DataConfig
from automix.data.load import load_data
from automix.data.splits import SearchData
from automix.models.registry import build_model
from automix.random_streams import Stream, stream_generator
from automix.saliency import InputGradient
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
    model = build_model(
        task.model,
        num_classes=data.num_classes,
        channels=data.train.images.shape[1],
        generator=stream_generator(seed, Stream.INITIALISATION),
    )
    return ClassifierTrainer(
        model.to(device),
        data.train,
        InputPipeline(data, task.data, device=device),
        saliency=InputGradient(),
        config=task.trainer,
        seed=seed,
    )
