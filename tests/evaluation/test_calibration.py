from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import softmax
from sklearn.metrics import recall_score
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
)

from automix.evaluation import calibration
from automix.evaluation.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    accuracy,
    adaptive_ece,
    brier,
    ece,
    fit_temperature,
    nll,
    reliability,
    worst_class_accuracy,
)

Metric = Callable[[Tensor, Tensor], Tensor]
METRICS: tuple[Metric, ...] = (
    accuracy,
    adaptive_ece,
    brier,
    ece,
    fit_temperature,
    nll,
    worst_class_accuracy,
)


def calibrated_nll(logits: Tensor, labels: Tensor) -> Tensor:
    return nll(logits / fit_temperature(logits, labels), labels)


def make_predictions(
    seed: int,
    *,
    num_images: int = 400,
    num_classes: int = 7,
    scale: float = 2.0,
    skill: float = 2.0,
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num_images,), generator=generator)
    noise = torch.randn(num_images, num_classes, generator=generator)
    return scale * (noise + skill * F.one_hot(labels, num_classes)), labels


def scipy_log_temperature(logits: Tensor, labels: Tensor) -> float:
    wide = logits.double()

    def objective(log_temperature: float) -> float:
        return F.cross_entropy(wide / np.exp(log_temperature), labels).item()

    bounds = (np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE))
    return float(
        minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
    )


def slope_root(logits: Tensor, labels: Tensor) -> float:
    """Root of the slope: minimizers of nearly flat likelihoods are exact to 1e-4 only."""
    wide = logits.double()
    margins = (wide - wide.gather(1, labels[:, None])).numpy()

    def slope(log_temperature: float) -> float:
        probabilities = softmax(margins / np.exp(log_temperature), axis=1)
        return float((probabilities * margins).sum(1).mean())

    low, high = np.log(MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    if slope(low) <= 0:
        return float(low)
    if slope(high) >= 0:
        return float(high)
    return float(brentq(slope, low, high, xtol=1e-12))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_accuracy_agrees_with_torchmetrics(k: int) -> None:
    logits, labels = make_predictions(0, skill=0.7)
    expected = multiclass_accuracy(logits, labels, num_classes=7, top_k=k, average="micro")
    torch.testing.assert_close(accuracy(logits, labels, k=k), expected)


def test_worst_class_accuracy_agrees_with_torchmetrics_and_scikit_learn() -> None:
    for num_images in (8, 400):
        # Of 8 images some classes have none.
        logits, labels = make_predictions(1, num_images=num_images, skill=0.7)
        value = worst_class_accuracy(logits, labels)
        present = sorted(set(labels.tolist()))
        recalls = recall_score(labels, logits.argmax(1), average=None, labels=present)
        assert value.item() == pytest.approx(recalls.min())
        per_class = multiclass_accuracy(logits, labels, num_classes=7, average="none")
        assert value == per_class[present].min()


def test_likelihood_and_brier_agree_with_slow_references() -> None:
    logits, labels = make_predictions(1)
    probabilities = logits.double().softmax(1).numpy()
    rows = np.arange(len(labels))
    one_hot = np.eye(7)[labels.numpy()]
    assert nll(logits, labels).item() == pytest.approx(
        -np.log(probabilities[rows, labels.numpy()]).mean(), rel=1e-6
    )
    assert brier(logits, labels).item() == pytest.approx(
        ((probabilities - one_hot) ** 2).sum(1).mean(), rel=1e-6
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_error_agrees_with_torchmetrics(scale: float, num_bins: int) -> None:
    logits, labels = make_predictions(2, scale=scale)
    expected = multiclass_calibration_error(logits, labels, num_classes=7, n_bins=num_bins)
    torch.testing.assert_close(ece(logits, labels, num_bins=num_bins), expected)


def test_adaptive_calibration_error_agrees_with_equal_chunks_of_the_sorted_predictions() -> None:
    logits, labels = make_predictions(3, num_images=150)
    confidence, predicted = logits.double().softmax(1).max(1)
    order = confidence.argsort().numpy()
    correct = (predicted == labels).numpy()[order]
    chunks = zip(np.split(correct, 15), np.split(confidence.numpy()[order], 15), strict=True)
    expected = np.mean([abs(hits.mean() - sure.mean()) for hits, sure in chunks])
    assert adaptive_ece(logits, labels).item() == pytest.approx(expected, abs=1e-6)


def test_calibration_errors_do_not_depend_on_the_order_even_with_equal_confidences() -> None:
    logits, labels = make_predictions(4, num_images=60)
    logits = logits.round()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for metric in (ece, adaptive_ece):
        torch.testing.assert_close(metric(logits, labels), metric(logits[order], labels[order]))


def test_certain_and_right_predictions_are_perfectly_calibrated() -> None:
    labels = torch.arange(5)
    logits = 1000.0 * F.one_hot(labels, 5)
    for metric in (ece, adaptive_ece, brier, nll, calibrated_nll):
        assert metric(logits, labels).item() == 0
    assert reliability(logits, labels).count.tolist() == [0] * 14 + [5]


def test_reliability_bins_hold_every_image_once() -> None:
    logits, labels = make_predictions(5)
    bins = reliability(logits, labels)
    assert bins.count.sum() == 400
    torch.testing.assert_close((bins.accuracy * bins.count).sum() / 400, accuracy(logits, labels))
    edges = torch.arange(16) / 15
    filled = bins.count > 0
    assert ((bins.confidence > edges[:-1]) & (bins.confidence <= edges[1:]))[filled].all()


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_images=st.integers(2, 60),
    num_classes=st.integers(2, 12),
    scale=st.floats(0.05, 30),
    skill=st.floats(-1, 3),
)
def test_temperature_agrees_with_scipy(
    seed: int, num_images: int, num_classes: int, scale: float, skill: float
) -> None:
    logits, labels = make_predictions(
        seed, num_images=num_images, num_classes=num_classes, scale=scale, skill=skill
    )
    best = slope_root(logits, labels)
    reference = F.cross_entropy(logits.double() / np.exp(best), labels).item()
    assert calibrated_nll(logits, labels).item() <= reference + 1e-5
    assert calibrated_nll(logits.double(), labels).item() <= reference + 1e-6
    if abs(best) < np.log(MAX_TEMPERATURE) - 0.1:
        fitted = fit_temperature(logits.double(), labels).log().item()
        assert fitted == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_temperature_of_a_typical_network_agrees_with_scipy(dtype: torch.dtype) -> None:
    logits, labels = make_predictions(6, num_images=2000, num_classes=10, scale=3.0, skill=1.0)
    temperature = fit_temperature(logits.to(dtype), labels)
    assert temperature.dtype == dtype
    assert temperature.log().item() == pytest.approx(
        scipy_log_temperature(logits, labels), abs=1e-4
    )


def test_temperature_undoes_a_scaling_of_the_logits() -> None:
    logits, labels = make_predictions(7)
    base = fit_temperature(logits, labels)
    torch.testing.assert_close(fit_temperature(4 * logits, labels), 4 * base, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        calibrated_nll(4 * logits, labels), calibrated_nll(logits, labels), rtol=1e-5, atol=0
    )


def test_classifiers_fitted_together_are_fitted_as_alone() -> None:
    logits, labels = make_predictions(14, num_images=120)
    # Their fits end after different numbers of iterations; one of them is at a bound.
    stacked = torch.stack([logits, 0.05 * logits, 20 * logits, -logits, torch.zeros_like(logits)])
    for metric in (fit_temperature, nll, accuracy, worst_class_accuracy):
        together = metric(stacked, labels)
        alone = torch.stack([metric(single, labels) for single in stacked])
        torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_the_number_of_iterations_on_accelerators_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(20):
        logits, labels = make_predictions(seed, num_images=30, scale=0.1 * 2**seed, skill=seed / 6)
        best = calibrated_nll(logits.double(), labels)
        with monkeypatch.context() as patch:
            patch.setattr(calibration, "_MAX_ITERATIONS", calibration._ITERATIONS_UNSEEN)
            cut_off = fit_temperature(logits, labels)
        assert nll(logits.double() / cut_off, labels) <= best + 1e-7


def test_flat_logits_have_temperature_one() -> None:
    logits, labels = torch.full((6, 3), 2.0), torch.tensor([0, 1, 2, 0, 1, 2])
    assert fit_temperature(logits, labels).item() == 1
    assert calibrated_nll(logits, labels).item() == pytest.approx(np.log(3))


@pytest.mark.parametrize(("label", "limit"), [(0, MIN_TEMPERATURE), (1, MAX_TEMPERATURE)])
def test_a_single_image_is_fitted_at_a_bound(label: int, limit: float) -> None:
    logits, labels = torch.tensor([[0.4, -0.1]], dtype=torch.float64), torch.tensor([label])
    assert fit_temperature(logits, labels).item() == pytest.approx(limit, rel=1e-2)


def test_perfect_separation_stays_in_the_bounds_and_has_no_loss() -> None:
    logits, labels = make_predictions(8, skill=40.0)
    temperature = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= temperature.item() < 1
    assert calibrated_nll(logits, labels).item() < 1e-6


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_extreme_logits_give_finite_temperatures(scale: float) -> None:
    logits, labels = make_predictions(9, skill=0.3)
    temperature = fit_temperature(logits * scale, labels).item()
    assert MIN_TEMPERATURE * 0.999 <= temperature <= MAX_TEMPERATURE * 1.001


def test_diverged_logits_give_a_likelihood_that_is_not_finite() -> None:
    logits, labels = make_predictions(10)
    logits[3, 2] = torch.nan
    assert not calibrated_nll(logits, labels).isfinite()


def test_calibration_never_makes_the_likelihood_worse() -> None:
    for seed in range(5):
        logits, labels = make_predictions(seed, num_images=30, skill=0.2 * seed)
        assert calibrated_nll(logits, labels) <= nll(logits, labels) + 1e-6


@pytest.mark.parametrize("metric", METRICS)
def test_results_are_scalars_without_gradient_side_effects(metric: Metric) -> None:
    logits, labels = make_predictions(11)
    before = logits.clone()
    for dtype in (torch.float32, torch.float64):
        result = metric(logits.to(dtype), labels)
        assert result.shape == ()
        assert result.dtype == dtype
    assert metric(logits.bfloat16(), labels.int()).dtype == torch.float32
    assert torch.equal(logits, before)


@pytest.mark.parametrize("metric", METRICS)
def test_soft_targets_and_wrong_shapes_are_refused(metric: Metric) -> None:
    logits, labels = make_predictions(12)
    with pytest.raises(TypeError, match="labels: expected one integer class number"):
        metric(logits, logits.softmax(1))
    with pytest.raises(TypeError, match="labels: expected one integer class number"):
        metric(logits, labels.float())
    with pytest.raises(ValueError, match="logits: expected shape"):
        metric(logits[:-1], labels)
    with pytest.raises(ValueError, match="logits: expected shape"):
        metric(logits[:0], labels[:0])


def test_impossible_counts_are_refused() -> None:
    logits, labels = make_predictions(13)
    with pytest.raises(ValueError, match="k: expected 1 to 7"):
        accuracy(logits, labels, k=8)
    with pytest.raises(ValueError, match="num_bins: expected at least 1"):
        ece(logits, labels, num_bins=0)


def test_temperature_fit_is_free_of_synchronization() -> None:
    # Meta tensors hold no values: reading one back on the host raises.
    logits = torch.empty(8, 3, device="meta")
    labels = torch.empty(8, dtype=torch.long, device="meta")
    for metric in METRICS:
        assert metric(logits, labels).device.type == "meta"
