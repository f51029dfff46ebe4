"""The classifier that a replay trained, with its data: read back from the folder of the run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from automix.config import Config
from automix.data.batches import BatchPreparer
from automix.data.config import DataConfig
from automix.data.loading import load_data
from automix.data.splits import DataSet
from automix.errors import CheckpointError
from automix.evaluation.attacks import PixelModel
from automix.evaluation.inference import Preparation, evaluation_mode
from automix.experiments.classifier_file import WEIGHTS_NAME, ClassifierFacts, load_classifier
from automix.experiments.config import ReplayConfig
from automix.experiments.runs import CONFIG_NAME, RESULT_NAME, read_json
from automix.files import sha256_of
from automix.training.build import training_device


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedClassifier:
    """A network in evaluation mode, and what belongs to it.

    Attributes:
        config: of the training; its data are where they are now.
        result: of the training.
        data: all splits, in main memory.
        facts: what the network expects of images.
        model: the network, on the device of this process; takes normalised images.
        prepare: makes what the network takes of stored images, on its device.
        weights_hash: of the file of weights.
    """

    config: ReplayConfig
    result: dict[str, Any]
    data: DataSet
    facts: ClassifierFacts
    model: nn.Module
    prepare: Preparation
    weights_hash: str

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def num_parameters(self) -> int:
        """Weights of the network."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @torch.no_grad()
    def predict(self, images_BCHW: Tensor) -> Tensor:
        """Return (B, K) float32 logits of stored images."""
        with evaluation_mode(self.model):
            logits_BK: Tensor = self.model(self.prepare(images_BCHW)).float()
        return logits_BK

    def in_pixels(self) -> PixelModel:
        """Return the network with its normalisation inside: it takes images in [0, 1]."""
        model = PixelModel(self.model, mean=self.facts.mean, std=self.facts.std)
        return model.to(self.device).eval()


class _Moved(Config):
    """Where data are now."""

    data: DataConfig


def load_trained(run: Path, *, data_path: Path | None = None) -> TrainedClassifier:
    """Read the classifier of a finished replay, and load the data it was trained on.

    Args:
        run: folder of the replay.
        data_path: where the data are now; None: where the run had them.

    Raises:
        CheckpointError: the run is not finished, is none of a replay, or its classifier is
            damaged.
        DataError: the data are missing.
        ConfigError: the configuration does not fit.
    """
    result = read_json(run / RESULT_NAME)
    if result.get("kind") != "replay":
        raise CheckpointError(
            f"{run}: expected the run of a replay, which has a classifier, "
            f"got one of {result.get('kind')!r}"
        )
    config = ReplayConfig.from_yaml(run / CONFIG_NAME)
    data_config = config.task.data
    if data_path is not None:
        values = {"data": data_config.model_dump(mode="json") | {"path": str(data_path)}}
        data_config = _Moved.from_mapping(values, source="--data-path").data
    model, facts = load_classifier(run)
    data = load_data(data_config)
    if data.fingerprint != result.get("data"):
        raise CheckpointError(
            f"{run}: expected the data of the training (fingerprint {result.get('data')}), "
            f"got others ({data.fingerprint}): what was trained on could be among the test images"
        )
    model.to(training_device())
    preparer = BatchPreparer(
        facts.statistics, data_config.augment, device=next(model.parameters()).device
    )
    task = config.task.model_copy(update={"data": data_config})
    return TrainedClassifier(
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
    return sha256_of((run / WEIGHTS_NAME).read_bytes())[:16]
