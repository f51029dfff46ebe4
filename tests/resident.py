"""Training images in memory, narrowed to their type, and their number per class."""

import torch

from automix.data.splits import Split, TrainingImages


def resident(images: TrainingImages) -> Split:
    """Return ``images`` as the `Split` that they are."""
    assert isinstance(images, Split)
    return images


def class_counts(images: TrainingImages) -> list[int]:
    return torch.bincount(images.labels, minlength=images.num_classes).tolist()
