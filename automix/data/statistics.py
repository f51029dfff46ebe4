"""Mean and standard deviation per channel, exact and independent of threads and device."""

import torch
from torch import Tensor

from automix.data.config import Normalisation
from automix.data.splits import ChannelStatistics, Split
from automix.errors import DataError

# The constants of torchvision's pretrained networks (references/classification/presets.py).
_IMAGENET = ChannelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_IMAGES_AT_ONCE = 1024


def channel_statistics(train: Split, normalisation: Normalisation) -> ChannelStatistics:
    """Return what images are normalised with.

    Raises:
        DataError: ImageNet's constants are wanted for images that do not have 3 channels.
    """
    channels = train.images.shape[1]
    if normalisation is Normalisation.NONE:
        return ChannelStatistics(mean=(0.0,) * channels, std=(1.0,) * channels)
    if normalisation is Normalisation.IMAGENET:
        if channels != len(_IMAGENET.mean):
            raise DataError(
                f"data.normalisation: expected images of 3 channels for 'imagenet', got {channels}"
            )
        return _IMAGENET
    return _measured(train.images)


def _measured(images_NCHW: Tensor) -> ChannelStatistics:
    # Counts of byte values are exact integers; a sum of floats would depend on its order.
    histogram = torch.zeros(images_NCHW.shape[1], 256, dtype=torch.int64)
    for start in range(0, len(images_NCHW), _IMAGES_AT_ONCE):
        chunk = images_NCHW[start : start + _IMAGES_AT_ONCE]
        for channel in range(len(histogram)):
            histogram[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
    weights = histogram.double() / histogram.sum(dim=1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = weights @ values
    variance = (weights * (values - mean[:, None]).square()).sum(dim=1)
    # A channel of one colour has nothing to scale.
    std = torch.where(variance > 0, variance.sqrt(), 1.0)
    return ChannelStatistics(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
