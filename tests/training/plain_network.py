"""A training whose network treats every image alone: the same however a batch is divided."""

import functools

import torch
from torch import nn

from automix.configuration.data import AugmentConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.batches import BatchLayout, BatchPreparer, ResidentBatches
from automix.data.splits import SearchData
from automix.models.build import initialize_
from automix.saliency.gradient import input_gradient
from automix.training.distributed import current_world
from automix.training.step import TrainingStep
from automix.training.trainer import ClassifierTrainer, load_search_data
from tests.resident import resident
from tests.training.conftest import TASK

_FIELDS = {"epochs": 4, "batch_size": 8, "learning_rate": 0.05}


@functools.cache
def digits() -> SearchData:
    return load_search_data(TASK.data)


def plain_network(*, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64, 10),
        )


def plain_trainer(
    *,
    seed: int = 0,
    dropout: float = 0.0,
    refresh_every: int = 1,
    crop_padding: int = 1,
    **fields: object,
) -> ClassifierTrainer:
    """Return a trainer in the world of this process."""
    config = TrainerConfig.model_validate(_FIELDS | fields)
    world, train = current_world(), digits().train
    layout = BatchLayout.fitting(
        len(train),
        config.batch_size,
        accumulation=config.accumulation,
        rank=world.rank,
        world_size=world.size,
    )
    preparer = BatchPreparer(digits().statistics, AugmentConfig(crop_padding=crop_padding))

    training_step = TrainingStep(
        plain_network(dropout=dropout),
        ResidentBatches(resident(train), preparer, layout),
        saliency=input_gradient,
        config=config,
        refresh_every=refresh_every,
    )
    return ClassifierTrainer(training_step, preparer, initialize=initialize_, seed=seed)
