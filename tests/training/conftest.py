"""One tiny task for all tests of training."""

from collections.abc import Callable

import pytest

from automix.configuration.data import AugmentConfig, DataConfig
from automix.configuration.task import ModelConfig, SaliencyConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data

MakeTrainer = Callable[..., ClassifierTrainer]

# 30 images in batches of 8: 3 steps and 6 images left over per epoch, 12 steps in all.
TASK = TaskConfig(
    data=DataConfig(
        labels_per_class=3,
        test_size=2,
        reward_size=2,
        selection_size=2,
        augment=AugmentConfig(crop_padding=1),
    ),
    model=ModelConfig(width=2),
    trainer=TrainerConfig(epochs=4, batch_size=8),
)
TOTAL_STEPS = 12


@pytest.fixture(scope="session")
def search_data() -> SearchData:
    return load_search_data(TASK.data)


@pytest.fixture
def make_trainer(search_data: SearchData) -> MakeTrainer:
    """Return a trainer of the tiny task with some fields of its `TrainerConfig` replaced."""

    def make(
        seed: int = 0, *, saliency: dict[str, object] | None = None, **fields: object
    ) -> ClassifierTrainer:
        config = TrainerConfig.model_validate(TASK.trainer.model_dump() | fields)
        source = SaliencyConfig.model_validate(saliency or {})
        task = TASK.model_copy(update={"trainer": config, "saliency": source})
        return build_trainer(task, search_data, seed=seed)

    return make
