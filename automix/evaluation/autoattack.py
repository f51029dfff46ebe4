"""AutoAttack (https://arxiv.org/abs/2003.01690), by the package of its authors: an extra."""

import importlib.util

import torch
from torch import nn

from automix.errors import MissingExtraError
from automix.evaluation.inference import EvaluationImages
from automix.random_streams import Stream, derived_seed

_MODULE = "pyautoattack"
_STANDARD_TARGETS = 9
# The targeted DLR loss looks at the four largest logits.
_FEWEST_CLASSES = 4


def check_autoattack(num_classes: int) -> None:
    """Refuse early what `survivors_of_autoattack` could not do.

    Raises:
        MissingExtraError: the package is not installed.
        ValueError: there are too few classes for its standard version.
    """
    if importlib.util.find_spec(_MODULE) is None:
        raise MissingExtraError(
            "attacks.autoattack: expected the extra autoattack (pip install "
            "'automix[autoattack]'), got an installation without it"
        )
    if num_classes < _FEWEST_CLASSES:
        raise ValueError(
            f"attacks.autoattack: expected at least {_FEWEST_CLASSES} classes, which its "
            f"standard version needs, got {num_classes}"
        )


def survivors_of_autoattack(
    model: nn.Module, images: EvaluationImages, *, epsilon: float, num_classes: int, seed: int
) -> int:
    """Return how many images AutoAttack's standard version fails to have misclassified.

    It aims at 9 wrong classes, or at all where there are fewer. The global generators are put back.

    Args:
        model: takes float images in [0, 1] on the device of the batches; in evaluation mode.
        images: the images.
        epsilon: largest change of a pixel value, of values in [0, 1].
        num_classes: length of the logits.
        seed: names the draws.
    """
    check_autoattack(num_classes)
    from pyautoattack import AutoAttack  # noqa: PLC0415 - an extra

    targets = min(_STANDARD_TARGETS, num_classes - 1)
    survivors = 0
    indexed = [] if images.device.type == "cpu" else [images.device]
    with torch.random.fork_rng(devices=indexed, device_type=images.device.type):
        for number, batch in enumerate(images.batches()):
            attack = AutoAttack(
                model,
                device=images.device,
                eps=epsilon,
                norm="Linf",
                # It goes through time.time() where it is 0, and must fit into 32 bits.
                seed=1 + derived_seed(seed, Stream.EVALUATION, step=number) % (2**31 - 1),
                version="standard",
            )
            attack.apgd_targeted.n_target_classes = targets
            attack.fab.n_target_classes = targets
            pixels = batch.images.float() / 255
            moved, _ = attack.run_standard_evaluation(
                pixels, batch.labels, batch_size=len(batch.labels)
            )
            with torch.no_grad():
                answers = model(moved).argmax(dim=1)
            survivors += int((answers == batch.labels).sum())
    return survivors
