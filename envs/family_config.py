"""Configuration of a family of tasks, of which one is drawn after the other. Free of torch."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from automix.configuration.base import Config, shown
from automix.configuration.data import DataConfig, DataSource
from automix.configuration.task import ModelConfig

DIGITS = DataSource.DIGITS.value
_SEPARATOR = "="

Range = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
CountRange = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
Side = Annotated[int, Field(ge=4, le=512)]


class FamilyConfig(Config):
    """Tasks that differ in images, classes, labels, network and length of training.

    Each task draws all of them from the ranges here; counts and rates on a logarithmic scale.
    """

    num_tasks: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Number of tasks that are drawn."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)] = (DIGITS,)
    """Images: `digits`, or NAME=FOLDER with a folder of images per class. All are equally
    likely."""

    flipped: tuple[str, ...] = ()
    """Names of the sources whose images may be flipped left to right."""

    num_classes: CountRange = (4, 10)
    """Number of classes, drawn among those of the source."""

    labels_per_class: CountRange = (8, 50)
    """Training images of each class; at most as many as the source has."""

    image_size: Annotated[tuple[Side, ...], Field(min_length=1)] = (12, 16)
    """Height and width in pixels to which the images of a folder are scaled."""

    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("small_cnn:8", "small_cnn:16")
    """Networks, each with its width after a colon if it has one."""

    steps: CountRange = (120, 360)
    """Optimizer steps of a training run, rounded to whole epochs."""

    batch_size: CountRange = (25, 64)
    """Images per optimizer step."""

    learning_rate: Range = (0.05, 0.3)
    """Maximum learning rate."""

    crop_padding: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(min_length=1)] = (
        0,
        1,
        2,
    )
    """Padding in pixels of random crops."""

    reward_size: Annotated[int, Field(ge=1)] = 50
    """Images per class on which the reward is measured."""

    @field_validator(
        "num_classes", "labels_per_class", "steps", "batch_size", "learning_rate", mode="after"
    )
    @classmethod
    def _rises(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if pair[0] > pair[1]:
            raise ValueError(f"expected the smaller number first, got {list(pair)}")
        return pair

    @field_validator("num_classes")
    @classmethod
    def _several_classes(cls, pair: tuple[int, int]) -> tuple[int, int]:
        if pair[0] < 2:
            raise ValueError(f"expected at least 2 classes, got {list(pair)}")
        return pair

    @field_validator("models")
    @classmethod
    def _known_models(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            model_of(name)
        return names

    @field_validator("sources")
    @classmethod
    def _named_sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            name, separator, folder = source.partition(_SEPARATOR)
            if (source != DIGITS and not (name and separator and folder)) or name.strip() != name:
                raise ValueError(f"expected '{DIGITS}' or NAME=FOLDER, got {shown(source)}")
        names = [source.partition(_SEPARATOR)[0] for source in sources]
        if len(set(names)) < len(names):
            raise ValueError(f"expected each source once, got {', '.join(names)}")
        return sources

    @model_validator(mode="after")
    def _flips_exist(self) -> Self:
        if unknown := [name for name in self.flipped if name not in self.source_names]:
            raise ValueError(
                f"expected flipped among {', '.join(self.source_names)}, got {unknown[0]!r}"
            )
        return self

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of the sources."""
        return tuple(source.partition(_SEPARATOR)[0] for source in self.sources)

    def data_of(self, name: str, *, image_size: int) -> DataConfig:
        """Return all images of a source; those of a folder at ``image_size`` pixels."""
        sizes = {"reward_size": self.reward_size, "selection_size": 1}
        folder = dict(source.partition(_SEPARATOR)[::2] for source in self.sources)[name]
        if name == DIGITS:
            return DataConfig(source=DataSource.DIGITS, **sizes)
        return DataConfig(
            source=DataSource.FOLDER, path=Path(folder), image_size=image_size, **sizes
        )


def model_of(name: str) -> ModelConfig:
    """Return the network that a name with a width, such as ``small_cnn:8``, stands for.

    Raises:
        ValueError: there is none.
    """
    model, _, width = name.partition(":")
    if width and not width.isdecimal():
        raise ValueError(f"expected NAME or NAME:WIDTH, got {shown(name)}")
    return ModelConfig(name=model, width=int(width) if width else None)
