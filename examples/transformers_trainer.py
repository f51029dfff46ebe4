"""Transformers' Trainer with a schedule; needs the extra ``transformers``.

The collator, the worker processes and the Trainer are as they would be without it.
"""

import tempfile
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments
from transformers.trainer_utils import set_seed

from automix.integrations.transformers import mix_in_trainer
from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from examples.digits import NUM_CLASSES, datasets, test_accuracy


class NamedDigits(Dataset[dict[str, Tensor]]):
    """The digits as items with names, which Transformers takes."""

    def __init__(self) -> None:
        self._items: Any = datasets()[0]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, label = self._items[index]
        return {"pixel_values": image, "labels": label}


def main() -> float:
    """Train, and return the accuracy on the test images."""
    set_seed(0)
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=1, embedding_size=32, hidden_sizes=[32, 64], depths=[1, 1],
            layer_type="basic", num_labels=NUM_CLASSES,
        )
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, num_train_epochs=3, per_device_train_batch_size=50, learning_rate=5e-3,
            use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=NamedDigits())
        mix_in_trainer(trainer, mix_then_off(Decision(operator=Operator.SALIENCYMIX)))
        trainer.train()
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
