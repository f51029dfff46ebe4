"""timm's training step, with a schedule in the place of ``timm.data.Mixup``.

timm's own ``train.py`` needs no edit; see `automix.integrations.timm`.
"""

import timm
import torch
from timm.loss.cross_entropy import SoftTargetCrossEntropy

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.schedule import Decision, even_schedule
from examples.digits import NUM_CLASSES, loaders, test_accuracy

EPOCHS = 2
MIXUP_OFF_EPOCH = 1


def main() -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    loader, _ = loaders()
    model = timm.create_model("test_resnet", num_classes=NUM_CLASSES, in_chans=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    mixup_fn = ScheduledMix(
        even_schedule([Decision(operator=Operator.CUTMIX), Decision(operator=Operator.RMIX)]),
        num_classes=NUM_CLASSES,
        total_steps=EPOCHS * len(loader),
        model=model,
        label_smoothing=0.1,
        optimizer=optimizer,
    )
    train_loss_fn = SoftTargetCrossEntropy()  # type: ignore[no-untyped-call]
    for epoch in range(EPOCHS):
        if epoch >= MIXUP_OFF_EPOCH:
            mixup_fn.mixup_enabled = False
        model.train()
        for images, labels in loader:
            mixed, targets = mixup_fn(images, labels)
            loss = train_loss_fn(model(mixed), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
