"""Expectations of pretrained weights: the data configurations of timm and torchvision."""

from dataclasses import dataclass

from automix.configuration.data import DataConfig, DataSource, Interpolation, Loading, Normalization
from automix.configuration.task import LIBRARY, ModelConfig, TaskConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedInput:
    """Images as the weights of a library were trained on them."""

    size: tuple[int, int]  # rows and columns
    mean: tuple[float, ...]  # per channel, of values in [0, 1]
    std: tuple[float, ...]
    interpolation: Interpolation
    crop: float  # of the shorter side, in evaluation


def images_of(task: TaskConfig) -> DataConfig:
    """Return the data configuration of a task, with what its pretrained weights expect.

    Normalization, interpolation and, where they are not set, size and the crop of evaluated images
    are those of the model's own data configuration, if it has weights to begin with, is a network
    of torchvision or timm, and ``normalization`` is auto.
    """
    data = task.data
    if data.normalization is not Normalization.AUTO or data.mean is not None:
        return data
    expected = pretrained_input(task.model)
    if expected is None:
        return data
    updates: dict[str, object] = {"mean": expected.mean, "std": expected.std}
    if data.interpolation is None:
        updates["interpolation"] = expected.interpolation
    # The digits are of 8 x 8 pixels.
    if data.image_size is None and data.source is not DataSource.DIGITS:
        updates["image_size"] = expected.size
    if data.evaluation_crop == 1 and data.loading is not Loading.RESIDENT:
        updates["evaluation_crop"] = expected.crop
    return data.model_copy(update=updates)


def pretrained_input(model: ModelConfig) -> PretrainedInput | None:
    """Return what the initial weights of a library's network expect; None for all others."""
    library = LIBRARY.fullmatch(model.name)
    if model.weights is None or model.factory is not None or library is None:
        return None
    return _of_torchvision(library[2]) if library[1] == "torchvision" else _of_timm(library[2])


def _of_timm(name: str) -> PretrainedInput | None:
    try:
        import timm  # noqa: PLC0415  # an extra
    except ImportError:
        # What is missing is said when the network is built.
        return None
    try:
        facts = timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        # An unknown name is refused in better words when the network is built.
        return None
    if facts is None:
        return None
    return PretrainedInput(
        size=facts.input_size[1:],
        mean=facts.mean,
        std=facts.std,
        interpolation=_interpolation(facts.interpolation),
        crop=facts.crop_pct,
    )


def _of_torchvision(name: str) -> PretrainedInput | None:
    import torchvision  # noqa: PLC0415  # two seconds

    try:
        transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    except ValueError:
        return None
    (side,), (resized,) = transform.crop_size, transform.resize_size
    return PretrainedInput(
        size=(side, side),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=_interpolation(transform.interpolation.value),
        crop=min(1.0, side / resized),
    )


def _interpolation(name: str) -> Interpolation:
    # timm has "random" for networks that were trained with several.
    is_known = name in {choice.value for choice in Interpolation}
    return Interpolation(name) if is_known else Interpolation.BILINEAR
