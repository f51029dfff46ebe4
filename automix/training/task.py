"""A complete training task: data, classifier, saliency and optimiser, built from one config."""

from pydantic import Field

from automix.config import Config
from automix.data.config import DataConfig
from automix.models.config import ModelConfig
from automix.saliency.config import SaliencyConfig
from automix.training.config import TrainerConfig


class TaskConfig(Config):
    """What is trained, on which images, and how."""

    data: DataConfig = Field(default_factory=DataConfig)
    """Where the images come from and how they are split."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    """The classifier."""

    saliency: SaliencyConfig = Field(default_factory=SaliencyConfig)
    """Where operators that need saliency get it from."""

    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    """Length, optimiser and averaging of one training."""
