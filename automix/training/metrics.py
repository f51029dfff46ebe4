"""Losses of a training run, and the metrics that it reports.

Shape suffixes: B batch, K classes.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor

from automix.training.distributed import current_world, gather_on_main, sum_over_processes_

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Takes (logits, targets), returns a loss per image: (B,) or (B, ...), not reduced."""

DecoupledMode = Literal["both", "less", "more"]
"""Parents that have a term of Decoupled Mixup."""

# Of the weight of a label, of the published code; below it nothing of the image is seen.
_LEAST_VISIBLE = 1e-3


def soft_cross_entropy(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Return the mean over the batch of - sum_k target_k log softmax(logits)_k.

    With one-hot rows it is the cross-entropy; with rows lam y_a + (1 - lam) y_b it equals
    `interpolated_loss` of the cross-entropy, and so do its gradients.

    Args:
        logits_BK: (B, K), any floating-point type.
        targets_BK: (B, K) soft targets, floating point; class indices are refused.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: the shapes differ or are not (B, K).
        TypeError: the targets are not floating point.
    """
    if logits_BK.ndim != 2 or logits_BK.shape != targets_BK.shape:
        raise ValueError(
            "expected logits and soft targets of the same shape (B, K), "
            f"got {tuple(logits_BK.shape)} and {tuple(targets_BK.shape)}"
        )
    if not targets_BK.is_floating_point():
        raise TypeError(f"expected floating-point soft targets, got {targets_BK.dtype}")
    # In float32 also under autocast: a float16 softmax over many classes loses the small ones.
    return -(targets_BK.float() * logits_BK.float().log_softmax(dim=1)).sum(dim=1).mean()


def smooth_labels(targets_BK: Tensor, smoothing: float) -> Tensor:
    """Return (1 - smoothing) * targets + smoothing / K: label smoothing of soft targets.

    The cross-entropy of smoothed one-hot rows is `F.cross_entropy` with ``label_smoothing``.

    Args:
        targets_BK: (B, K) soft targets, floating point.
        smoothing: weight of the uniform distribution, in [0, 1).

    Raises:
        ValueError: ``smoothing`` is out of range.
    """
    if not 0 <= smoothing < 1:
        raise ValueError(f"expected smoothing in [0, 1), got {smoothing}")
    if smoothing == 0:
        return targets_BK
    return targets_BK * (1 - smoothing) + smoothing / targets_BK.shape[1]


def interpolated_loss(
    criterion: Criterion,
    logits: Tensor,
    own_targets: Tensor,
    partner_targets: Tensor,
    lam: Tensor,
) -> Tensor:
    """Return the mean over the batch of lam * loss(own) + (1 - lam) * loss(partner).

    For losses that are linear in the target it equals the loss of the soft target; for the
    others (focal, margin, ...) it is the form to use.

    Args:
        criterion: not reduced, for example ``functools.partial(F.cross_entropy,
            reduction="none")``; a loss of more dimensions than (B,) is averaged over the others.
        logits: (B, ...), what ``criterion`` takes first; passed on in float32.
        own_targets: of the first parents, what ``criterion`` takes second.
        partner_targets: of the second parents.
        lam: (B,) or a scalar, weight of the first parent, in [0, 1].

    Returns:
        A float32 scalar.

    Raises:
        ValueError: ``criterion`` reduces over the batch, or ``lam`` has another length.
    """
    batch = logits.shape[0]
    if lam.shape not in ((), (batch,)):
        raise ValueError(f"expected lam of shape () or ({batch},), got {tuple(lam.shape)}")
    first = _per_image(criterion(logits.float(), own_targets), batch)
    partner = _per_image(criterion(logits.float(), partner_targets), batch)
    return torch.lerp(partner, first, lam.float().expand(batch)).mean()


def _per_image(losses: Tensor, batch: int) -> Tensor:
    if losses.ndim == 0 or losses.shape[0] != batch:
        raise ValueError(
            f"expected a criterion that returns one loss per image ({batch}), as with "
            f"reduction='none', got shape {tuple(losses.shape)}"
        )
    return losses.flatten(1).mean(dim=1) if losses.ndim > 1 else losses


def decoupled_mixup_loss(
    logits_BK: Tensor,
    own_classes_B: Tensor,
    partner_classes_B: Tensor,
    lam: Tensor,
    *,
    eta: float = 0.1,
    mode: DecoupledMode = "both",
) -> Tensor:
    """Return the cross-entropy plus ``eta`` times the mean of `decoupled_terms`.

    Decoupled Mixup, Liu et al. 2023, https://arxiv.org/abs/2203.10761. Where one of the two images
    is not visible (``lam`` 0 or 1), and with ``eta`` 0, it equals `soft_cross_entropy`.

    Args:
        logits_BK: (B, K), any floating-point type.
        own_classes_B: (B,) int64, classes of the first parents.
        partner_classes_B: (B,) int64, classes of the second parents.
        lam: (B,) or a scalar, weight of the first parent, in [0, 1]; each image has its own.
        eta: weight of the term, not negative; `OperatorFacts.decoupled_eta` is the published one.
        mode: of which parents; see `decoupled_terms`.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: a shape is not as above, or ``eta`` is negative.
        TypeError: the classes are not int64.

    Examples:
        >>> logits, classes = torch.zeros(1, 3), torch.tensor([0])
        >>> loss = decoupled_mixup_loss(logits, classes, classes + 1, torch.tensor([0.5]), eta=1.0)
        >>> round(loss.exp().item(), 3)
        12.0
    """
    if eta < 0:
        raise ValueError(f"expected eta of at least 0, got {eta}")
    # Checked there, before anything is gathered.
    terms_B = decoupled_terms(logits_BK, own_classes_B, partner_classes_B, lam, mode=mode)
    logs_BK = logits_BK.float().log_softmax(dim=1)
    own_B, partner_B = (
        logs_BK.gather(1, classes[:, None]).squeeze(1)
        for classes in (own_classes_B, partner_classes_B)
    )
    lam_B = lam.float().expand(len(logits_BK))
    return (eta * terms_B - torch.lerp(partner_B, own_B, lam_B)).mean()


def decoupled_terms(
    logits_BK: Tensor,
    own_classes_B: Tensor,
    partner_classes_B: Tensor,
    lam: Tensor,
    *,
    mode: DecoupledMode = "both",
) -> Tensor:
    """Return Decoupled Mixup's term of each image, (B,) float32 in nats.

    With z the logits, a and b the classes of the two parents, the sum over the parents c that
    ``mode`` names, with d the other class, of

        -log softmax of c among all classes but d = log(sum over k != d of exp z_k) - z_c,

    which lets both classes be confident. ``both``: of both parents; ``more``: of those with a label
    weight above 0.5; ``less``: of the others. It is 0 where the classes are equal, or where a
    parent has a weight of at most 0.001: nobody can learn the class of an image that is not there.

    Raises:
        ValueError: a shape is not that of `decoupled_mixup_loss`.
        TypeError: the classes are not int64.
    """
    if logits_BK.ndim != 2:
        raise ValueError(f"expected logits of shape (B, K), got {tuple(logits_BK.shape)}")
    batch = logits_BK.shape[0]
    if lam.shape not in ((), (batch,)):
        raise ValueError(f"expected lam of shape () or ({batch},), got {tuple(lam.shape)}")
    for classes in (own_classes_B, partner_classes_B):
        if classes.dtype != torch.int64:
            raise TypeError(f"expected class indices of type int64, got {classes.dtype}")
        if classes.shape != (batch,):
            raise ValueError(f"expected classes of shape ({batch},), got {tuple(classes.shape)}")
    logits, lam_B = logits_BK.float(), lam.float().expand(batch)
    weight_B2 = torch.stack((lam_B, 1 - lam_B), dim=1)
    classes_B2 = torch.stack((own_classes_B, partner_classes_B), dim=1)
    # With equal classes there is no other one to leave out: plain cross-entropy remains.
    has_two_B = (own_classes_B != partner_classes_B) & (weight_B2.amin(1) > _LEAST_VISIBLE)
    logsumexp_B2 = torch.cat(
        [
            _without_class(logits, classes_B2[:, other, None], has_two_B[:, None])
            for other in (1, 0)
        ],
        dim=1,
    )
    terms_B2 = logsumexp_B2 - logits.gather(1, classes_B2)
    # By parent, not by class: either class may be that of the larger part.
    if mode != "both":
        is_more_B2 = weight_B2 > 0.5
        terms_B2 = terms_B2 * (is_more_B2 if mode == "more" else ~is_more_B2)
    return torch.where(has_two_B, terms_B2.sum(1), 0.0)


def _without_class(logits_BK: Tensor, class_B1: Tensor, where_B1: Tensor) -> Tensor:
    """Return (B, 1), the log of the softmax's denominator without one class where ``where``."""
    # Only where the classes differ: with one class left out of one, the gradient would be NaN.
    left_out = torch.zeros_like(logits_BK, dtype=torch.bool).scatter(1, class_B1, where_B1)
    return logits_BK.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainMetrics:
    """Means over the steps of a segment, and over all processes.

    Predictions are compared with the images' own classes, never with mixed labels, and those on
    mixed images are counted apart: there even a perfect classifier is right only in part.

    Attributes:
        loss: training loss on the batches as they were fed (mixed or not), in nats.
        clean_accuracy: fraction of the images of unmixed batches that are classified correctly, in
            [0, 1]; None if all batches were mixed.
        mixed_accuracy: fraction of the images of mixed batches whose predicted class is that of the
            first parent, in [0, 1]; None if no batch was mixed.
        mixed_fraction: fraction of the images that were in mixed batches, in [0, 1].
        num_images: number of images.
        seconds: wall-clock time of the segment.
    """

    loss: float
    clean_accuracy: float | None
    mixed_accuracy: float | None
    mixed_fraction: float
    num_images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        """Images fed per second of wall-clock time, by all processes together."""
        return self.num_images / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalMetrics:
    """Likelihood and accuracy of a classifier on a split.

    Where images have several labels, NLL and accuracy are means over the decisions on every label
    of every image, and the accuracy on a class is its recall.

    Attributes:
        nll: mean negative log-likelihood of the labels, in nats.
        calibrated_nll: the same after division of the logits by one temperature. Mixing makes a
            network underconfident, which plain NLL punishes and a temperature repairs.
        accuracy: fraction of images classified correctly, in [0, 1].
        worst_class_accuracy: accuracy on the class that is classified worst, in [0, 1].
        mean_average_precision: over the classes, of images with several labels; else None.
        temperature: the temperature, fitted on the split itself unless it was given.
        num_images: size of the split.
    """

    nll: float
    calibrated_nll: float
    accuracy: float
    temperature: float
    num_images: int
    worst_class_accuracy: float = math.nan
    mean_average_precision: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanMetrics:
    """Likelihood and accuracy on unmixed training images."""

    nll: float  # mean negative log-likelihood of the labels, in nats
    accuracy: float  # fraction of images classified correctly, in [0, 1]


class SumsState(TypedDict):
    """State of `RunningSums` in a checkpoint: a row of sums for each process."""

    # (processes, 5) float64: loss, correct predictions on clean and on mixed images, and the
    # numbers of clean and of mixed images.
    sums: Tensor
    seconds: float


class RunningSums:
    """Loss and correct predictions summed on the device, without a host synchronization.

    Attributes:
        seconds: wall-clock time, counted by the caller.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at zero on ``device``."""
        self.seconds = 0.0
        # float64: an epoch of float32 losses would lose their last bits in the sum. The counts of
        # images are known on the host and need no device.
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        # Of clean and of mixed images.
        self._correct = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)]
        self._num_clean = 0
        self._num_mixed = 0

    @torch.no_grad()
    def add(self, loss: Tensor, logits_BK: Tensor, labels_B: Tensor, *, is_mixed: bool) -> None:
        """Take in a batch: its mean loss, logits and the images' own classes or rows of labels."""
        batch = len(labels_B)
        # Four kernels: the loss is widened where it is added.
        self._loss.add_(loss, alpha=batch)
        if labels_B.ndim == 2:
            right = ((logits_BK > 0) == (labels_B > 0)).double().mean(dim=1)
        else:
            right = logits_BK.argmax(dim=1) == labels_B
        self._correct[is_mixed].add_(right.sum())
        if is_mixed:
            self._num_mixed += batch
        else:
            self._num_clean += batch

    def read(self) -> TrainMetrics:
        """Return the means over all processes, each of which must call this.

        This is the segment's one host synchronization.
        """
        started = time.perf_counter()
        totals = sum_over_processes_(self._row())
        loss, clean_correct, mixed_correct, num_clean, num_mixed = totals.tolist()
        # On an accelerator the steps end here, not where they were launched.
        self.seconds += time.perf_counter() - started
        num_images = num_clean + num_mixed
        return TrainMetrics(
            loss=loss / max(num_images, 1),
            clean_accuracy=clean_correct / num_clean if num_clean else None,
            mixed_accuracy=mixed_correct / num_mixed if num_mixed else None,
            mixed_fraction=num_mixed / max(num_images, 1),
            num_images=int(num_images),
            seconds=self.seconds,
        )

    def state_dict(self) -> SumsState:
        """Return the state, for a checkpoint in the middle of a stretch.

        Every process must call this; what rank 0 gets is complete.
        """
        rows = gather_on_main(self._row())
        return SumsState(sums=torch.stack(rows) if rows else torch.empty(0), seconds=self.seconds)

    def load_state_dict(self, state: SumsState) -> None:
        """Resume from a state: further additions give the same bits as without the cut."""
        row = state["sums"][current_world().rank]
        self._loss.copy_(row[0])
        for correct, value in zip(self._correct, row[1:3], strict=True):
            correct.copy_(value)
        self._num_clean, self._num_mixed = (int(count) for count in row[3:].tolist())
        self.seconds = float(state["seconds"])

    def _row(self) -> Tensor:
        counts = torch.tensor([self._num_clean, self._num_mixed], dtype=torch.float64)
        sums = torch.stack((self._loss, *(correct.double() for correct in self._correct)))
        return torch.cat((sums, counts.to(sums.device)))
