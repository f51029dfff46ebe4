"""A trained classifier as files: weights as safetensors, what rebuilds it as JSON. No pickle."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

import safetensors.torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from torch import Tensor, nn

from automix.config import Config
from automix.data.splits import ChannelStatistics
from automix.errors import CheckpointError, ConfigError
from automix.files import write_bytes, write_json
from automix.models.config import ModelConfig
from automix.models.registry import build_model
from automix.plain_yaml import read_text
from automix.random_streams import Stream, stream_generator

WEIGHTS_NAME = "classifier.safetensors"
FACTS_NAME = "classifier.json"

Side = Annotated[int, Field(ge=1, le=65536)]


class ClassifierFacts(Config):
    """What a classifier is rebuilt from, and what it expects of images."""

    format: Literal["automix-classifier"] = "automix-classifier"
    """Says what kind of file this is."""

    version: Literal[1] = 1
    """Version of the format."""

    model: ModelConfig
    """The network. Its initial weights, which no longer matter, are left out."""

    class_names: Annotated[tuple[str, ...], Field(min_length=1, max_length=100_000)]
    """Name of each class, in the order of the logits."""

    image_shape: tuple[Side, Side, Side]
    """Channels, rows and columns of the images it was trained on."""

    mean: tuple[float, ...]
    """Per channel, of pixel values in [0, 1]: subtracted from them."""

    std: tuple[Annotated[float, Field(gt=0)], ...]
    """Per channel: what the difference is divided by."""

    provenance: dict[str, str] = Field(default_factory=dict)
    """Seed, step, schedule, data and versions of the training."""

    @model_validator(mode="after")
    def _one_of_each_per_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.image_shape[0]:
            raise ValueError(
                f"expected a mean and a std for each of {self.image_shape[0]} channels, got "
                f"{len(self.mean)} and {len(self.std)}"
            )
        return self

    @property
    def statistics(self) -> ChannelStatistics:
        """What images are normalised with, as `BatchPreparer` takes it."""
        return ChannelStatistics(mean=self.mean, std=self.std)


def save_classifier(folder: Path, facts: ClassifierFacts, model: nn.Module) -> None:
    """Write `classifier.json` and `classifier.safetensors` into ``folder``, each atomically."""
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
    write_json(folder / FACTS_NAME, facts.model_dump(mode="json"))


def load_classifier(folder: Path) -> tuple[nn.Module, ClassifierFacts]:
    """Rebuild the classifier that `save_classifier` wrote, on the CPU, in evaluation mode.

    Nothing in the files is executed.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are another network's.
        AutoMixError: the library that the network comes from is not installed.
    """
    facts = _read_facts(folder / FACTS_NAME)
    model = build_model(
        facts.model,
        num_classes=len(facts.class_names),
        channels=facts.image_shape[0],
        generator=stream_generator(0, Stream.INITIALISATION),
    )
    path = folder / WEIGHTS_NAME
    try:
        model.load_state_dict(_read_weights(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: expected weights that fit, got: {reason}") from None
    return model.eval(), facts


def _read_facts(path: Path) -> ClassifierFacts:
    try:
        return ClassifierFacts.from_mapping(json.loads(read_text(path)), source=str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path}: expected JSON, got text that does not parse") from None


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(f"{path}: expected a readable file, got: {reason}") from None
    except (SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: expected safetensors, got: {reason}") from None
