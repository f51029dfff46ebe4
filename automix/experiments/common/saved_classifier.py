"""classifier.json beside the weights: written by replay, read by evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import safetensors.torch
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from automix.configuration.base import Config, shown
from automix.configuration.data import DataConfig
from automix.configuration.task import ModelConfig, ReplayConfig
from automix.data.batches import BatchPreparer
from automix.data.load import load_data
from automix.data.splits import ChannelStatistics, Dataset
from automix.errors import CheckpointError
from automix.evaluation.attacks import PixelModel
from automix.evaluation.inference import Preparation
from automix.experiments.common.kept_files import check_whole
from automix.experiments.common.run_files import check_result
from automix.experiments.common.run_folder import CONFIG_NAME, RESULT_NAME
from automix.files import sha256_of_file, write_bytes, write_json
from automix.models.build import build_model, shapes_of_model
from automix.models.pretrained import images_of
from automix.network_outputs import logits_of
from automix.random_streams import Stream, stream_generator
from automix.readers import read_json
from automix.saliency.gradient import evaluation_mode
from automix.tensor_files import MAX_TENSOR_BYTES, read_weights
from automix.training.trainer import training_device

WEIGHTS_NAME = "classifier.safetensors"
FACTS_NAME = "classifier.json"

Side = Annotated[int, Field(ge=1, le=65536)]


class ClassifierFacts(Config):
    """Everything that a classifier is rebuilt from, and that it expects of images."""

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

    @field_validator("model")
    @classmethod
    def _brings_its_weights(cls, model: ModelConfig) -> ModelConfig:
        # A file or a download that somebody else chose would be opened.
        if model.weights is not None:
            raise ValueError(f"expected no initial weights, got {shown(str(model.weights))}")
        return model

    @model_validator(mode="after")
    def _one_of_each_per_channel(self) -> Self:
        if not len(self.mean) == len(self.std) == self.image_shape[0]:
            raise ValueError(
                f"expected a mean and a std for each of {self.image_shape[0]} channels, got "
                f"{len(self.mean)} and {len(self.std)}"
            )
        return self

    @classmethod
    def of(cls, model: ModelConfig, data: Dataset, *, provenance: dict[str, str]) -> Self:
        """Return the facts about a network that was trained on ``data``."""
        return cls(
            model=model.model_copy(update={"weights": None}),
            class_names=data.class_names,
            image_shape=data.seen.image_shape,
            mean=data.statistics.mean,
            std=data.statistics.std,
            provenance=provenance,
        )

    @property
    def statistics(self) -> ChannelStatistics:
        """Mean and standard deviation that images are normalized with."""
        return ChannelStatistics(mean=self.mean, std=self.std)


def save_classifier(folder: Path, facts: ClassifierFacts, model: nn.Module) -> None:
    """Write `classifier.json` and `classifier.safetensors` into ``folder``, each atomically."""
    weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    write_bytes(folder / WEIGHTS_NAME, safetensors.torch.save(weights))
    write_json(folder / FACTS_NAME, facts.model_dump(mode="json"))


def check_factory(model: ModelConfig, named: str | None, *, source: str, flag: str) -> None:
    """Refuse a network of a file whose factory was not named by the user, too.

    Raises:
        CheckpointError: the factory of the file is another one, or none was named.
    """
    if model.factory != named:
        raise CheckpointError(
            f"{source}: expected {flag} with the factory that built its network "
            f"({model.factory or 'none'}), because its code is run, got {named or 'none'}"
        )


def load_classifier(
    folder: Path, *, factory: str | None = None
) -> tuple[nn.Module, ClassifierFacts]:
    """Rebuild the classifier that `save_classifier` wrote, on the CPU, in evaluation mode.

    Nothing in the files is executed, and nothing imported that they name: the network of a factory
    is built only where ``factory`` names the same one.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are another network's, or the
            factory is another one.
        AutoMixError: the library that the network comes from is not installed.
    """
    facts = ClassifierFacts.from_json_file(folder / FACTS_NAME)
    check_factory(facts.model, factory, source=str(folder / FACTS_NAME), flag="--factory")
    channels, *size = facts.image_shape
    shape: dict[str, Any] = {
        "num_classes": len(facts.class_names),
        "channels": channels,
        "image_size": tuple(size),
    }
    # Read before the network is built: its size is what somebody wrote into the file of facts.
    weights = read_weights(folder / WEIGHTS_NAME, shapes_of_model(facts.model, **shape))
    generator = stream_generator(0, Stream.INITIALIZATION)
    model = build_model(facts.model, **shape, generator=generator)
    model.load_state_dict(weights)
    return model.eval(), facts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedClassifier:
    """The classifier that a finished replay saved, in evaluation mode, and its data.

    `model` takes the normalized images that `prepare` makes of stored ones, on the device of this
    process; the paths in `config` are those where the data are now.
    """

    config: ReplayConfig
    result: dict[str, Any]
    data: Dataset
    facts: ClassifierFacts
    model: nn.Module
    prepare: Preparation
    weights_hash: str

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def predict(self, images_BCHW: Tensor) -> Tensor:
        """Return (B, K) float32 logits of stored images."""
        with evaluation_mode(self.model):
            return logits_of(self.model(self.prepare(images_BCHW))).float()

    def in_pixels(self) -> PixelModel:
        """Return the network with its normalization inside: it takes images in [0, 1]."""
        model = PixelModel(self.model, mean=self.facts.mean, std=self.facts.std)
        return model.to(self.device).eval()


class _Moved(Config):
    """A configuration of data alone: a wrong path is then a mistake in ``--data-path``."""

    data: DataConfig


def load_saved_classifier(
    run: Path, *, data_path: Path | None = None, factory: str | None = None
) -> SavedClassifier:
    """Read the classifier of a finished replay, and load its data, perhaps moved to ``data_path``.

    ``factory`` is that of its network, see `load_classifier`.

    Raises:
        AutoMixError: no finished replay, a damaged file, missing data or a wrong configuration.
    """
    # In the order of their cost: result, configuration, weights, and then the data.
    result = read_json(run / RESULT_NAME)
    if result.get("kind") != "replay":
        raise CheckpointError(
            f"{run}: expected the run of a replay, which has a classifier, "
            f"got one of {result.get('kind')!r}"
        )
    check_result(result, source=str(run / RESULT_NAME))
    check_whole(run)
    config = ReplayConfig.from_yaml(run / CONFIG_NAME)
    data_config = config.task.data
    if data_path is not None:
        values = {"data": data_config.model_dump(mode="json") | {"path": str(data_path)}}
        data_config = _Moved.from_mapping(values, source="--data-path").data
    model, facts = load_classifier(run, factory=factory)
    moved = config.task.model_copy(update={"data": data_config})
    data = load_data(images_of(moved))
    if data.fingerprint != result.get("data"):
        raise CheckpointError(
            f"{run}: expected the data of the training run (fingerprint {result.get('data')}), "
            f"got others ({data.fingerprint}): what was trained on could be among the test images"
        )
    model.to(training_device())
    preparer = BatchPreparer(
        facts.statistics, data_config.augment, device=next(model.parameters()).device
    )
    task = config.task.model_copy(update={"data": data_config})
    return SavedClassifier(
        config=config.model_copy(update={"task": task}),
        result=result,
        data=data,
        facts=facts,
        model=model,
        prepare=preparer.evaluation,
        weights_hash=weights_hash(run),
    )


def weights_hash(run: Path) -> str:
    """Return a hash of the weights in the folder of a replay."""
    return sha256_of_file(run / WEIGHTS_NAME, limit=MAX_TENSOR_BYTES)[:16]
