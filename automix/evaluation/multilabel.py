"""Scores where an image has several labels: each of the M x K decisions is right or wrong.

All functions take (..., M, K) logits of several classifiers or one, and (M, K) labels of 0 and 1;
results have the leading shape, on the device, without a host synchronization.
Shape suffixes: M images, K classes, P decisions.
"""

import torch
from torch import Tensor


def as_decisions(logits_MK: Tensor, labels_MK: Tensor) -> tuple[Tensor, Tensor]:
    """Return every label as a problem of two classes: (..., M K, 2) logits and (M K,) int64.

    The softmax of (0, z) is the sigmoid of z, so that likelihood, accuracy and temperature of two
    classes (`automix.evaluation.calibration`) are those of the labels: the mean binary
    cross-entropy, and 1 minus the Hamming loss.
    """
    flat = logits_MK.flatten(-2)
    return torch.stack((torch.zeros_like(flat), flat), dim=-1), labels_MK.flatten().long()


def mean_average_precision(logits_MK: Tensor, labels_MK: Tensor) -> Tensor:
    """Return the mean over the classes with a positive image of the average precision, in [0, 1].

    The average precision of a class is the mean, over its positive images, of the precision among
    the images that score at least as high: the sum over thresholds of precision times the gain in
    recall, without interpolation, as in scikit-learn. Without a positive image it is 0.
    """
    scores_KM, order_KM = logits_MK.float().mT.sort(dim=-1, descending=True)
    positives_KM = labels_MK.T.float().expand(order_KM.shape).gather(-1, order_KM)
    count = scores_KM.shape[-1]
    ranks = torch.arange(1, count + 1, device=scores_KM.device)
    precision_KM = positives_KM.cumsum(dim=-1) / ranks
    # Of equal scores all count at the last one: no threshold comes between them.
    is_last = torch.ones_like(scores_KM, dtype=torch.bool)
    is_last[..., :-1] = scores_KM[..., 1:] != scores_KM[..., :-1]
    last = torch.where(is_last, ranks - 1, count).flip(-1).cummin(dim=-1).values.flip(-1)
    num_positive_K = positives_KM.sum(dim=-1)
    average_K = (positives_KM * precision_KM.gather(-1, last)).sum(dim=-1)
    average_K = average_K / num_positive_K.clamp(min=1)
    num_classes = (num_positive_K > 0).sum(dim=-1).clamp(min=1)
    return average_K.sum(dim=-1) / num_classes


def worst_class_recall(logits_MK: Tensor, labels_MK: Tensor) -> Tensor:
    """Return the smallest fraction, over the classes, of positive images with a logit above 0."""
    positives_K = labels_MK.float().sum(dim=0)
    hits_K = ((logits_MK > 0) & (labels_MK > 0)).float().sum(dim=-2)
    return torch.where(positives_K > 0, hits_K / positives_K, torch.inf).amin(dim=-1)
