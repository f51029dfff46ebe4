"""Augmentation by torchvision or kornia (an extra), then mixing.

Augmentation comes first: a crop of a mixed image would cut what the weight of its label counts.
"""

import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from examples.digits import NUM_CLASSES, loaders, network, test_accuracy

EPOCHS = 3


def main(library: str = "torchvision") -> float:
    """Train with augmentation by one of both, and return the accuracy on the test images."""
    torch.manual_seed(0)
    loader, _ = loaders()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    mix = ScheduledMix(
        mix_then_off(Decision(operator=Operator.PUZZLEMIX)),
        num_classes=NUM_CLASSES,
        total_steps=EPOCHS * len(loader),
        model=model,
        optimizer=optimizer,
    )
    if library == "kornia":
        import kornia.augmentation as K  # noqa: PLC0415

        # Each image of the batch draws on its own.
        augment = K.AugmentationSequential(K.RandomAffine(10.0, p=0.5), data_keys=["input"])
    else:
        augment = v2.RandomAffine(10.0)  # one draw per batch
    for _ in range(EPOCHS):
        model.train()
        for images, labels in loader:
            mixed, targets = mix(augment(images), labels)
            loss = F.cross_entropy(model(mixed), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
