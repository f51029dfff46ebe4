"""Mixing in ``collate_fn``, as torchvision's references do with ``v2.MixUp`` and ``v2.CutMix``."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from automix.integrations.torchvision_transform import OperatorTransform
from examples.digits import NUM_CLASSES, datasets, network, test_accuracy

EPOCHS = 3


def main() -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    mixup_or_fmix = v2.RandomChoice(
        [OperatorTransform(name, num_classes=NUM_CLASSES) for name in ("mixup", "fmix")]
    )

    def collate(items: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        mixed: list[Tensor] = mixup_or_fmix(default_collate(items))
        return mixed

    train, _ = datasets()
    loader = DataLoader(train, 50, shuffle=True, collate_fn=collate)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(EPOCHS):
        model.train()
        for images, targets in loader:
            loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
