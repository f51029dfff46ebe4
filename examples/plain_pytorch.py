"""A plain PyTorch loop that mixes as a schedule says, and saves what it needs to continue."""

import torch
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from examples.digits import NUM_CLASSES, loaders, network, test_accuracy

EPOCHS = 3


def main() -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    loader, _ = loaders()
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    mix = ScheduledMix(
        # Or what a search has found: Schedule.load(Path("schedule.json")).
        mix_then_off(Decision(operator=Operator.PUZZLEMIX, probability=0.5)),
        num_classes=NUM_CLASSES,
        total_steps=EPOCHS * len(loader),
        model=model,  # saliency comes from its gradients
        optimizer=optimizer,  # tells a resumed run that has forgotten `mix.state_dict()`
    )
    for _ in range(EPOCHS):
        model.train()
        for images, labels in loader:
            mixed, targets = mix(images, labels)
            loss = F.cross_entropy(model(mixed), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
        checkpoint = {"model": model.state_dict(), "mix": mix.state_dict()}
        mix.load_state_dict(checkpoint["mix"])  # type: ignore[arg-type]  # as on a resume
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
