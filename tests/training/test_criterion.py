"""Class weights and adjusted logits, against PyTorch's loss and scikit-learn's weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.training.check import check_model
from automix.training.criterion import Criterion, balancing_weights
from automix.training.targets import target_rows
from tests.training.conftest import TASK
from tests.training.test_targets import CLASSES, every_form, logits_of

CPU = torch.device("cpu")
COUNTS = torch.tensor([50, 1, 9, 20, 20])


def loss_of(logits: Tensor, targets: object, **fields: object) -> Tensor:
    config = TrainerConfig.model_validate(fields)
    loss: Tensor = Criterion(config, COUNTS, device=CPU)(logits, targets)  # type: ignore[arg-type]
    return loss


@given(seed=st.integers(0, 2**20), smoothing=st.sampled_from([0.0, 0.1]))
def test_class_weights_are_those_of_pytorch(seed: int, smoothing: float) -> None:
    weights = (0.5, 4.0, 0.0, 1.0, 2.0)
    for targets in every_form(seed):
        logits, rows = logits_of(seed), target_rows(targets, CLASSES)
        loss = loss_of(logits, targets, class_weights=weights, label_smoothing=smoothing)
        # With rows of probabilities PyTorch, too, divides by the number of images.
        expected = F.cross_entropy(
            logits, rows, weight=torch.tensor(weights), label_smoothing=smoothing
        )
        torch.testing.assert_close(loss, expected)
        gradients = [torch.autograd.grad(one, logits)[0] for one in (loss, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


@given(seed=st.integers(0, 2**20), tau=st.floats(0.1, 2))
def test_adjusted_logits_are_the_loss_of_logits_plus_the_log_prior(seed: int, tau: float) -> None:
    prior = (COUNTS / 100).log()
    for targets in every_form(seed):
        logits = logits_of(seed)
        loss = loss_of(logits, targets, logit_adjustment=tau)
        expected = F.cross_entropy(logits + tau * prior, target_rows(targets, CLASSES))
        torch.testing.assert_close(loss, expected)


@given(counts=st.lists(st.integers(1, 100), min_size=2, max_size=6))
def test_balancing_weights_are_those_of_scikit_learn(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    weights = balancing_weights(torch.tensor(counts))
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)
    assert weights[labels].mean().item() == pytest.approx(1)
    assert balancing_weights(torch.tensor([4, 0])).tolist() == [0.5, 0]


def test_there_is_one_weight_for_each_class(search_data: SearchData) -> None:
    trainer = TrainerConfig(class_weights=(1.0, 2.0))
    with pytest.raises(ConfigError, match=r"^task\.trainer\.class_weights: expected 10 numbers"):
        check_model(TASK.model_copy(update={"trainer": trainer}), search_data)
