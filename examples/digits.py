"""The digits of scikit-learn as loaders, and a small network: what the examples share."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

NUM_CLASSES = 10

DigitSet = Dataset[tuple[Tensor, ...]]


def datasets() -> tuple[DigitSet, DigitSet]:
    """Return 1,500 images to train on and 297 to test on; items are (image, label)."""
    bunch = load_digits()
    images_NCHW = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16
    labels_N = torch.tensor(bunch.target)
    return (
        TensorDataset(images_NCHW[:1500], labels_N[:1500]),
        TensorDataset(images_NCHW[1500:], labels_N[1500:]),
    )


def loaders(
    batch_size: int = 50,
) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """Return loaders of both datasets."""
    train, test = datasets()
    return (
        DataLoader(train, batch_size, shuffle=True, generator=torch.Generator().manual_seed(0)),
        DataLoader(test, 297),
    )


def network() -> nn.Module:
    """Return a small convolutional network with batch norm."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(128, NUM_CLASSES),
    )  # fmt: skip


@torch.no_grad()
def test_accuracy(model: nn.Module) -> float:
    """Return the fraction of the test images that are classified correctly."""
    model.eval()
    images, labels = next(iter(loaders()[1]))
    outputs = model(images)
    logits: Tensor = getattr(outputs, "logits", outputs)
    return float((logits.argmax(1) == labels).float().mean())
