"""Lightning Fabric: mix between batch and forward pass; needs the extra ``lightning``.

The wrapper that ``fabric.setup`` returns is for forward passes; saliency comes from its module.
"""

import torch
from lightning.fabric import Fabric
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.schedule import Decision, constant_schedule
from examples.digits import NUM_CLASSES, loaders, network, test_accuracy

EPOCHS = 3


def main() -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu")
    raw = network()
    model, optimizer = fabric.setup(raw, torch.optim.SGD(raw.parameters(), lr=0.2, momentum=0.9))
    loader = fabric.setup_dataloaders(loaders()[0])
    mix = ScheduledMix(
        constant_schedule(Decision(operator=Operator.SALIENCYMIX, probability=0.5)),
        num_classes=NUM_CLASSES,
        total_steps=EPOCHS * len(loader),
        model=model.module,
        rank=fabric.global_rank,
        optimizer=optimizer,
    )
    for _ in range(EPOCHS):
        model.train()
        for images, labels in loader:
            mixed, targets = mix(images, labels)
            loss = F.cross_entropy(model(mixed), targets)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
    return test_accuracy(raw)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
