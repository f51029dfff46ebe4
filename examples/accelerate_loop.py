"""A loop of accelerate: mix between batch and forward pass; needs the extra ``transformers``.

``accelerator.prepare`` moves batches to the device and splits them over processes; the schedule
comes after it, and is saved and loaded with everything else.
"""

import tempfile

import torch
from accelerate import Accelerator
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from examples.digits import NUM_CLASSES, loaders, network, test_accuracy

EPOCHS = 3


def main() -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    raw = network()
    model, optimizer, loader = accelerator.prepare(
        raw, torch.optim.AdamW(raw.parameters(), lr=0.01), loaders()[0]
    )
    mix = ScheduledMix(
        mix_then_off(Decision(operator=Operator.SALIENCYMIX)),
        num_classes=NUM_CLASSES,
        total_steps=EPOCHS * len(loader),  # batches of one process
        model=model,
        rank=accelerator.process_index,
        optimizer=optimizer,  # says where the run is, if a checkpoint is loaded without the mix
    )
    accelerator.register_for_checkpointing(mix)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(EPOCHS):
            model.train()
            for images, labels in loader:
                with accelerator.accumulate(model):
                    mixed, targets = mix(images, labels)
                    loss = F.cross_entropy(model(mixed), targets)
                    accelerator.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
            accelerator.save_state(folder)
            accelerator.load_state(folder)  # as on a resume
    return test_accuracy(raw)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
