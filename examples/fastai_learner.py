"""fastai's Learner with a schedule as a callback; needs the extra ``fastai``."""

import torch
from fastai.basics import DataLoaders, Learner
from fastai.callback import progress  # noqa: F401  # gives a Learner its `no_bar`
from fastai.losses import CrossEntropyLossFlat

from automix.integrations.fastai import ScheduledMixCallback
from automix.operator_info import Operator
from automix.schedule import Decision, mix_then_off
from examples.digits import NUM_CLASSES, loaders, network, test_accuracy


def main() -> float:
    """Train, and return the accuracy on the test images."""
    torch.manual_seed(0)
    model = network()
    schedule = mix_then_off(Decision(operator=Operator.SALIENCYMIX))
    learn = Learner(
        DataLoaders(*loaders(), device=torch.device("cpu")),
        model,
        loss_func=CrossEntropyLossFlat(),
        cbs=ScheduledMixCallback(schedule, num_classes=NUM_CLASSES),
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(3, 0.01)
    return test_accuracy(model)


if __name__ == "__main__":
    print(f"accuracy on the test images: {main():.3f}")
