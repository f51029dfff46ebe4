"""Adversarial attacks in the maximum norm, in pixel space: FGSM and PGD with restarts.

Images are in [0, 1] and normalization belongs to the model (`PixelModel`), so that epsilon means
the same for every dataset. One step of the gradient's sign alone is no evidence of robustness:
networks trained against it can fall to PGD entirely, so reports hold both.

Shape suffixes: N images, B batch, C channels, H rows, W columns, K classes.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from automix.errors import MissingExtraError
from automix.evaluation.counter_random import SampleRandom
from automix.evaluation.inference import EvaluationImages
from automix.network_outputs import logits_of
from automix.operator_info import Statistics
from automix.random_streams import Stream, derived_seed
from automix.saliency.gradient import without_trace
from automix.saliency.losses import loss_gradient


class PixelModel(nn.Module):
    """A classifier of images in [0, 1]: normalization, then the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the (B, K) logits of float images in [0, 1]."""
        return logits_of(self.model((images_BCHW - self.mean) / self.std))


@dataclass(frozen=True, slots=True, kw_only=True)
class PgdSettings:
    """Distance and length of projected gradient descent (https://arxiv.org/abs/1706.06083)."""

    epsilon: float = 8 / 255  # largest change of a pixel value, of values in [0, 1]
    step_size: float = 2 / 255  # change of every pixel value in one step
    num_steps: int = 20  # per start
    num_restarts: int = 3  # random starts; the strongest result of each image counts

    def __post_init__(self) -> None:
        if min(self.epsilon, self.step_size) < 0:
            raise ValueError(
                "expected epsilon and step_size of at least 0, "
                f"got {self.epsilon} and {self.step_size}"
            )
        if self.num_steps < 1 or self.num_restarts < 1:
            raise ValueError(
                "expected at least one step and one restart, "
                f"got {self.num_steps} and {self.num_restarts}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackCounts:
    """Numbers of images classified correctly as they are, and after each attack."""

    num_images: int
    clean: int
    fgsm: int
    pgd: int


def fgsm(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, *, epsilon: float) -> Tensor:
    """Return images moved by ``epsilon`` along the sign of the loss gradient.

    See https://arxiv.org/abs/1412.6572. The model, which takes float images in [0, 1], is left as
    it was. Where the label's logit leads by more than about 87, the loss has no gradient in
    float32, and the image does not move.
    """
    # x' = clip(x + epsilon sign(d loss / d x), 0, 1).
    with without_trace(model, device=images_BCHW.device, statistics=Statistics.RUNNING):
        signs = _ascent(model, images_BCHW, labels_B)
    return (images_BCHW + epsilon * signs).clamp(0, 1)


def pgd(
    model: nn.Module,
    images_BCHW: Tensor,
    labels_B: Tensor,
    *,
    settings: PgdSettings,
    seed: int,
    indices: Tensor | None = None,
) -> Tensor:
    """Return for each image the strongest of several projected gradient searches.

    The strongest is the one with the largest margin of a wrong class over the label; the clean
    image takes part, so an attack never helps. A margin of 0 is a tie, which `torch.argmax` may
    give to either. The model, which takes float images in [0, 1], is left as it was. ``indices``,
    (B,) int64, are the numbers of the images in their dataset, 0 to B - 1 by default: random starts
    belong to them, not to the batch. No pixel moves further than epsilon, nor out of [0, 1].
    """
    if indices is None:
        indices = torch.arange(len(images_BCHW), device=images_BCHW.device)
    random = SampleRandom(seed=seed, indices=indices)
    # The allowed box of each pixel: within epsilon of the image and within [0, 1].
    low = (images_BCHW - settings.epsilon).clamp(min=0)
    high = (images_BCHW + settings.epsilon).clamp(max=1)
    with without_trace(model, device=images_BCHW.device, statistics=Statistics.RUNNING):
        best, best_margin = images_BCHW, _margin(model, images_BCHW, labels_B)
        for restart in range(settings.num_restarts):
            start = random.uniform(f"start {restart}", images_BCHW.shape[1:])
            moved = low + start.to(low.dtype) * (high - low)
            for _ in range(settings.num_steps):
                # Ascent on the loss, projected back into the box by the clamp.
                signs = _ascent(model, moved, labels_B)
                moved = torch.clamp(moved + settings.step_size * signs, low, high)
            # Keep the strongest restart of each image by its margin, not by the loss: a restart
            # that is misclassified beats every one that is not.
            margin = _margin(model, moved, labels_B)
            is_stronger = margin > best_margin
            best = torch.where(is_stronger.view(-1, 1, 1, 1), moved, best)
            best_margin = torch.maximum(margin, best_margin)
    return best


def count_survivors(
    model: nn.Module, images: EvaluationImages, *, settings: PgdSettings, seed: int
) -> AttackCounts:
    """Attack every image by FGSM and PGD, a batch at a time, and count correct predictions.

    FGSM has the epsilon of ``settings``; the random starts of PGD belong to the number of an image.
    """
    correct = torch.zeros(3, dtype=torch.int64, device=images.device)
    for batch in images.batches():
        pixels, labels = batch.images.float() / 255, batch.labels
        attacked = (
            pixels,
            fgsm(model, pixels, labels, epsilon=settings.epsilon),
            pgd(model, pixels, labels, settings=settings, seed=seed, indices=batch.indices),
        )
        with without_trace(model, device=pixels.device, statistics=Statistics.RUNNING):
            correct += torch.stack([_count_correct(model, moved, labels) for moved in attacked])
    clean, one_step, many_steps = correct.tolist()
    return AttackCounts(num_images=len(images), clean=clean, fgsm=one_step, pgd=many_steps)


@torch.no_grad()
def _count_correct(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    logits_BK = logits_of(model(images_BCHW)).float()
    hits_B: Tensor = (logits_BK.argmax(dim=1) == labels_B) & logits_BK.isfinite().all(dim=1)
    return hits_B.sum()


def _ascent(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """Return the signs of the loss gradient at each pixel."""
    images = images_BCHW.detach().requires_grad_()
    return loss_gradient(model(images), labels_B, images).sign()


@torch.no_grad()
def _margin(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor) -> Tensor:
    """Return by how much the best wrong logit exceeds that of the label; above 0 is an error."""
    logits_BK = logits_of(model(images_BCHW)).float()
    label_logit_B1 = logits_BK.gather(1, labels_B[:, None])
    others_BK = logits_BK.scatter(1, labels_B[:, None], -torch.inf)
    margin_B: Tensor = others_BK.amax(dim=1) - label_logit_B1[:, 0]
    return margin_B


_MODULE = "pyautoattack"
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
    """Return the number of images that survive AutoAttack's standard version.

    See https://arxiv.org/abs/2003.01690: four attacks without parameters to tune, the targeted ones
    at 9 wrong classes, or at all where there are fewer. The model is in evaluation mode.
    """
    check_autoattack(num_classes)
    from pyautoattack import AutoAttack  # noqa: PLC0415 - an extra

    targets = min(9, num_classes - 1)
    survivors = 0
    # The package draws from the global generators; they are put back afterwards.
    indexed = [] if images.device.type == "cpu" else [images.device]
    with torch.random.fork_rng(devices=indexed, device_type=images.device.type):
        for number, batch in enumerate(images.batches()):
            attack = AutoAttack(
                model,
                device=images.device,
                eps=epsilon,
                norm="Linf",
                # The package takes the time for a seed of 0, and needs 32 bits.
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
