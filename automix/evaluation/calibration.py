"""Scores of predicted probabilities: likelihood, Brier score, temperature, calibration error.

All functions take (N, K) finite logits of any floating type, half precision being widened to
float32, and (N,) integer class numbers in [0, K). They raise TypeError for soft targets, which
most formulas accept silently and which would mean something else, and ValueError for shapes that
do not fit, no image, or ``num_bins`` below 1. Everything stays on the device of the logits without
a host synchronization: results are 0-d tensors, float64 for float64 logits and float32 otherwise.
Likelihood, accuracy and temperature also take (..., N, K) logits of several classifiers on the same
images, and return a tensor of shape (...).

Shape suffixes: N images, K classes, M bins.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE_FROM = "temperature fitted on selection images"
"""What a calibrated NLL or a scaled ECE is, in the words of every table, card and message."""

NUM_BINS = 15
"""Bins of the calibration errors, the field's usual number (https://arxiv.org/abs/1706.04599)."""

MIN_TEMPERATURE = 0.01
MAX_TEMPERATURE = 100.0
"""A fit stays in this range: data that is separated perfectly has its optimum at zero."""

# Each step is at most half of the step before last, so 24 end within 0.002 of the best log T. Of
# 3,000 synthetic problems with optima from bound to bound, half were over after 5 and 90% after 8;
# cut off at 12, the likelihood was at most 1e-9 nats from the best.
_MAX_ITERATIONS = 24
_ITERATIONS_UNSEEN = 12
# Newton's method squares the error: after a step of this size it is below the rounding of float32.
_LAST_STEP = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBins:
    """The reliability diagram: one entry for each bin of confidence."""

    count: Tensor  # (M,) number of images in each bin, in the dtype of the confidences
    accuracy: Tensor  # (M,) fraction of correct predictions in [0, 1]; 0 where a bin is empty
    confidence: Tensor  # (M,) mean confidence in [0, 1]; 0 where a bin is empty

    def error(self) -> Tensor:
        """Return the gaps between accuracy and confidence, weighted by the images per bin."""
        # ECE = sum_m n_m / N |acc_m - conf_m| (Guo et al. 2017, equation 3).
        gaps = (self.accuracy - self.confidence).abs()
        return (gaps * self.count).sum() / self.count.sum()


def nll(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return the mean negative log likelihood in nats."""
    logits_NK = _checked(logits_NK, labels_N, stacked=True)
    if logits_NK.dim() == 2:
        return F.cross_entropy(logits_NK, labels_N.long())
    return -logits_NK.log_softmax(dim=-1).gather(-1, _index(labels_N, logits_NK)).mean((-2, -1))


def worst_class_accuracy(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return the smallest accuracy of the classes that have images, in [0, 1]."""
    logits_NK = _checked(logits_NK, labels_N, stacked=True)
    is_right = (logits_NK.argmax(dim=-1) == labels_N).to(logits_NK.dtype)
    classes = labels_N.long()
    right_K = is_right.new_zeros(logits_NK.shape[:-2] + logits_NK.shape[-1:])
    right_K.index_add_(-1, classes, is_right)
    count_K = is_right.new_zeros(logits_NK.shape[-1])
    count_K.index_add_(0, classes, torch.ones_like(classes, dtype=count_K.dtype))
    return torch.where(count_K > 0, right_K / count_K, torch.inf).amin(dim=-1)


def accuracy(logits_NK: Tensor, labels_N: Tensor, *, k: int = 1) -> Tensor:
    """Return the fraction of images whose label is among the ``k`` largest logits, in [0, 1].

    Of equal logits those of the lower class numbers come first, as in `torch.argmax`; a label
    whose logit is not a number is never among them.

    Raises:
        ValueError: ``k`` is not in [1, K], besides what all functions here raise.
    """
    logits_NK = _checked(logits_NK, labels_N, stacked=True)
    if not 1 <= k <= logits_NK.shape[-1]:
        raise ValueError(f"k: expected 1 to {logits_NK.shape[-1]} (the classes), got {k}")
    # `topk` does not define which of several equal logits it returns, so ranks are counted.
    label_logit_N1 = logits_NK.gather(-1, _index(labels_N, logits_NK))
    is_ahead = torch.arange(logits_NK.shape[-1], device=logits_NK.device) < labels_N[:, None]
    precedes_NK = ~(logits_NK <= label_logit_N1) | ((logits_NK == label_logit_N1) & is_ahead)
    return (precedes_NK.sum(dim=-1) < k).to(logits_NK.dtype).mean(dim=-1)


def brier(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return the mean squared distance of the probabilities to the one-hot label, in [0, 2].

    The sum runs over all classes, as in Brier's paper; some libraries halve it for two classes.
    """
    logits_NK = _checked(logits_NK, labels_N)
    probabilities_NK = logits_NK.softmax(dim=1)
    label_probability_N = probabilities_NK.gather(1, labels_N.long()[:, None])[:, 0]
    # sum_k (p_k - y_k)^2 without building the one-hot matrix.
    return (probabilities_NK.square().sum(dim=1) - 2 * label_probability_N + 1).mean()


def fit_temperature(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Return the temperature T whose ``logits / T`` have the smallest negative log likelihood.

    The negative log likelihood is convex in 1 / T, so its derivative has one sign change; Newton's
    method in log T finds it within a shrinking bracket. On a CPU it stops when it has; elsewhere
    the host does not look, and iterations are of a fixed number. The temperature stays in
    [``MIN_TEMPERATURE``, ``MAX_TEMPERATURE``]. Where every temperature fits equally well (each row
    of logits is constant) the result is 1. See Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    logits_NK = _checked(logits_NK, labels_N, stacked=True).detach()
    # Relative to the label's logit the slope is a mean of p * margin: no cancellation.
    margins_NK = logits_NK - logits_NK.gather(-1, _index(labels_N, logits_NK))
    log_scale = margins_NK.new_zeros(margins_NK.shape[:-2])  # log(1 / T)
    first, last = -math.log(MAX_TEMPERATURE), -math.log(MIN_TEMPERATURE)
    low, high = torch.full_like(log_scale, first), torch.full_like(log_scale, last)
    step = before_last = torch.full_like(log_scale, 2 * (last - first))
    is_host = margins_NK.device.type == "cpu"
    for _ in range(_MAX_ITERATIONS if is_host else _ITERATIONS_UNSEEN):
        scale = log_scale.exp()
        slope, curvature = _slope_and_curvature(margins_NK, scale)
        # The bracket: the slope is negative below the optimum and positive above it.
        low = torch.where(slope < 0, log_scale, low)
        high = torch.where(slope > 0, log_scale, high)
        # Newton's step for the root of the slope in x = log s: d slope / dx = s * curvature.
        # Beyond a bound it tries the bound, where the optimum of separated data is.
        reached = (log_scale - slope / (scale * curvature)).clamp(first, last)
        is_short = (reached - log_scale).abs() <= 0.5 * before_last.abs()
        is_safe = (reached >= low) & (reached <= high) & is_short
        # Otherwise bisect. Half of the step before last bounds the number of iterations, as in
        # Dekker's and Brent's methods.
        following = torch.where(is_safe, reached, 0.5 * (low + high))
        # At the optimum the sign of the slope is noise and may send the search away again.
        is_over = (slope == 0) | (step.abs() <= _LAST_STEP)
        before_last, step = step, torch.where(is_over, 0, following - log_scale)
        log_scale = log_scale + step
        if is_host and bool((step.abs() <= _LAST_STEP).all()):
            break
    return (-log_scale).exp()


def reliability(
    logits_NK: Tensor, labels_N: Tensor, *, num_bins: int = NUM_BINS
) -> ReliabilityBins:
    """Sort predictions into ``num_bins`` bins of equal width, each open below: (low, high]."""
    confidence_N, correct_N = _top_predictions(logits_NK, labels_N, num_bins)
    inner_edges = torch.arange(
        1, num_bins, dtype=confidence_N.dtype, device=confidence_N.device
    ).div(num_bins)
    bins_N = torch.bucketize(confidence_N, inner_edges)
    return _bin(confidence_N, correct_N, bins_N, num_bins)


def ece(logits_NK: Tensor, labels_N: Tensor, *, num_bins: int = NUM_BINS) -> Tensor:
    """Return the expected calibration error of the predicted class, equal-width bins, in [0, 1]."""
    return reliability(logits_NK, labels_N, num_bins=num_bins).error()


def adaptive_ece(logits_NK: Tensor, labels_N: Tensor, *, num_bins: int = NUM_BINS) -> Tensor:
    """Return the calibration error of the predicted class with equally filled bins, in [0, 1].

    See https://arxiv.org/abs/2002.09437. Equal confidences share a bin, so that the result does
    not depend on the order of the images; the bins are then less equal.
    """
    confidence_N, correct_N = _top_predictions(logits_NK, labels_N, num_bins)
    # The rank of the first of equal confidences, scaled to bins.
    ascending_N = confidence_N.sort().values
    rank_N = torch.searchsorted(ascending_N, confidence_N)
    bins_N = rank_N * num_bins // confidence_N.shape[0]
    return _bin(confidence_N, correct_N, bins_N, num_bins).error()


def _checked(logits_NK: Tensor, labels_N: Tensor, *, stacked: bool = False) -> Tensor:
    """Return the logits as float32 or float64 after checking both arguments."""
    if labels_N.is_floating_point() or labels_N.dim() != 1:
        raise TypeError(
            "labels: expected one integer class number per image, shape (N,), got "
            f"{labels_N.dtype} of shape {tuple(labels_N.shape)}; soft targets have no accuracy"
        )
    is_table = logits_NK.dim() == 2 or (stacked and logits_NK.dim() > 2)
    if not is_table or logits_NK.shape[-2] != labels_N.shape[0] or not logits_NK.numel():
        raise ValueError(
            f"logits: expected shape ({labels_N.shape[0]}, classes) with at least one image, "
            f"got {tuple(logits_NK.shape)}"
        )
    return logits_NK if logits_NK.dtype == torch.float64 else logits_NK.float()


def _slope_and_curvature(margins_NK: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first two derivatives of the mean NLL with respect to the scale 1 / T."""
    # With margins d_k = z_k - z_label and p = softmax(s d): NLL = log sum_k exp(s d_k), whose
    # derivatives are the mean and the variance of d under p.
    probabilities_NK = (margins_NK * scale[..., None, None]).softmax(dim=-1)
    mean_N1 = (probabilities_NK * margins_NK).sum(dim=-1, keepdim=True)
    variance_N = (probabilities_NK * (margins_NK - mean_N1).square()).sum(dim=-1)
    return mean_N1.mean((-2, -1)), variance_N.mean(dim=-1)


def _index(labels_N: Tensor, logits_NK: Tensor) -> Tensor:
    """Return the labels as an index into the last dimension of the logits, (..., N, 1)."""
    return labels_N.long()[:, None].expand(*logits_NK.shape[:-1], 1)


def _top_predictions(logits_NK: Tensor, labels_N: Tensor, num_bins: int) -> tuple[Tensor, Tensor]:
    """Return the confidence of each predicted class and whether it is the label, as 0 or 1."""
    logits_NK = _checked(logits_NK, labels_N)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected at least 1, got {num_bins}")
    confidence_N, predicted_N = logits_NK.softmax(dim=1).max(dim=1)
    return confidence_N, (predicted_N == labels_N).to(confidence_N.dtype)


def _bin(confidence_N: Tensor, correct_N: Tensor, bins_N: Tensor, num_bins: int) -> ReliabilityBins:
    """Average confidence and correctness per bin."""
    # A masked sum is deterministic on every device; index_add on an accelerator is not.
    members_NM = (bins_N[:, None] == torch.arange(num_bins, device=bins_N.device)).to(confidence_N)
    count_M = members_NM.sum(dim=0)
    divisor_M = count_M.clamp(min=1)
    return ReliabilityBins(
        count=count_M,
        accuracy=(members_NM * correct_N[:, None]).sum(dim=0) / divisor_M,
        confidence=(members_NM * confidence_N[:, None]).sum(dim=0) / divisor_M,
    )
