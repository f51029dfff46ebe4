"""Lightning with a schedule as a callback; needs the extra ``lightning``."""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor
from torch.nn import functional as F

from automix.integrations.lightning_callback import ScheduledMixCallback
from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from examples.digits import NUM_CLASSES, loaders, network, test_accuracy


class Classifier(LightningModule):
    """A classifier whose training step takes soft targets."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return (B, K) logits."""
        logits: Tensor = self.network(images_BCHW)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch that the callback has mixed."""
        images, targets = batch
        return F.cross_entropy(self(images), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


def main() -> float:
    """Train, and return the accuracy on the test images."""
    seed_everything(0, verbose=False)
    model = Classifier()
    schedule = mix_then_off(Decision(operator=Operator.SALIENCY_GRAFTING))
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        callbacks=[ScheduledMixCallback(schedule, num_classes=NUM_CLASSES)],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, loaders()[0])
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
