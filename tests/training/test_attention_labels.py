"""TransMix: label weights by the attention of a vision transformer, in the steps of a training run.

The reference is one image and one patch at a time, with the attention as timm computes it without
its fused function.
"""

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from automix.configuration.data import DataConfig
from automix.configuration.operators import OperatorOptions
from automix.configuration.task import ModelConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.errors import ConfigError
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.operators.transmix import attention_lam
from automix.schedule import Decision
from automix.training.check import check_model
from automix.training.targets import LabelPairs, target_rows
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data
from tests.equality import assert_same
from tests.saliency.test_attention import attention_of_blocks
from tests.training.conftest import TASK
from tests.training.test_trainer_determinism import snapshot

pytest.importorskip("timm", reason="needs the extra timm")
PASTING = [operator for operator in Operator if OPERATOR_FACTS[operator].pastes]
VIT = ModelConfig(factory="tests.models.users_networks:timm_vit")


@pytest.fixture(scope="module")
def data() -> SearchData:
    return load_search_data(TASK.data)


def task_of(weight: float, model: ModelConfig = VIT, **trainer: Any) -> TaskConfig:
    return TASK.model_copy(
        update={
            "model": model,
            "operators": OperatorOptions(attention_labels=weight),
            "trainer": TASK.trainer.model_copy(update=trainer),
        }
    )


def slow_lam(mask: Tensor, attention: Tensor, area: float, weight: float) -> float:
    """Weigh one image: ``attention`` of its class token, (R, Q), and ``mask``, (H, W)."""
    rows, columns = attention.shape
    height, width = mask.shape
    kept = total = 0.0
    for row, column in product(range(rows), range(columns)):
        # Nearest: the first pixel of a patch.
        is_partner = mask[row * height // rows, column * width // columns].item()
        kept += (1 - is_partner) * attention[row, column].item()
        total += attention[row, column].item()
    return (1 - weight) * area + weight * (kept / total if total else area)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    patch=st.integers(1, 4),
    weight=st.floats(0, 1),
)
def test_the_weight_is_that_of_a_plain_loop(
    seed: int, rows: int, columns: int, patch: int, weight: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(3, 1, rows * patch, columns * patch, generator=generator) < 0.4).float()
    attention = torch.rand(3, rows, columns, generator=generator)
    attention[2] = 0  # the class token looks at itself alone
    area = 1 - mask.mean((1, 2, 3))
    lam = attention_lam(area, mask, attention, weight=weight)
    for image in range(3):
        expected = slow_lam(mask[image, 0], attention[image], area[image].item(), weight)
        assert lam[image].item() == pytest.approx(expected, abs=1e-5)
    assert lam.min() >= 0
    assert lam.max() <= 1 + 1e-6
    # Whoever attends to all patches alike sees areas, if no patch is cut.
    whole = mask[..., ::patch, ::patch].repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    area = 1 - whole.mean((1, 2, 3))
    even = attention_lam(area, whole, torch.full((3, rows, columns), 0.3), weight=1.0)
    torch.testing.assert_close(even, area)


@pytest.mark.parametrize("operator", PASTING)
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_the_loss_has_the_labels_of_the_attention(
    data: SearchData, operator: Operator, weight: float
) -> None:
    trainer = build_trainer(task_of(weight), data, seed=3)
    stages = trainer.training_step
    trainer.model.train()
    images, labels, key = stages.fetch(seed=3, step=0)
    batch = stages.mix(Decision(operator=operator), images, labels, key=key)
    assert isinstance(batch.targets, LabelPairs)
    assert batch.pasted is not None
    with attention_of_blocks(trainer.model) as layers:
        logits = trainer.model(batch.images)
    last = layers[-1].mean(dim=1)
    side = batch.images.shape[2] // 2
    rows = []
    for image, area in enumerate(batch.targets.lam.tolist()):
        attention = last[image, 0, 1:].reshape(side, side)
        lam = slow_lam(batch.pasted.mask[image, 0], attention, area, weight)
        first, second = (F.one_hot(it[image], 10) for it in batch.targets[:2])
        rows.append(lam * first + (1 - lam) * second)
    expected = -(torch.stack(rows) * logits.log_softmax(dim=1)).sum(dim=1).mean()
    loss = stages.loss(stages.forward(batch), batch)
    torch.testing.assert_close(loss, expected)
    by_area = F.cross_entropy(logits, target_rows(batch.targets, 10))
    assert not torch.allclose(loss, by_area)


def test_other_operators_have_the_labels_of_the_area(data: SearchData) -> None:
    trainers = [build_trainer(task_of(weight), data, seed=3) for weight in (0.0, 0.5)]
    for trainer in trainers:
        trainer.train(Decision(operator=Operator.MIXUP), num_steps=2)
    assert_same(*(snapshot(trainer) for trainer in trainers))


@pytest.mark.parametrize("operator", [Operator.CUTMIX, Operator.SALIENCYMIX])
def test_a_resumed_run_gives_the_same_bits(data: SearchData, operator: Operator) -> None:
    decision = Decision(operator=operator, probability=0.75)
    # Two micro-batches, one average, and the loss of the unmixed images.
    task = task_of(0.5, accumulation=2, clean_loss=0.5)
    whole, cut = (build_trainer(task, data, seed=1) for _ in range(2))
    whole.train(decision, num_steps=8)
    cut.train(decision, num_steps=3)
    state = snapshot(cut)
    cut = build_trainer(task, data, seed=9)
    cut.load_state_dict(state)  # type: ignore[arg-type]
    cut.train(decision, num_steps=5)
    assert_same(snapshot(whole), snapshot(cut))
    area = build_trainer(task_of(0.0, accumulation=2, clean_loss=0.5), data, seed=1)
    area.train(decision, num_steps=8)
    assert _weights_differ(area, whole)


def _weights_differ(one: ClassifierTrainer, other: ClassifierTrainer) -> bool:
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)


def test_rows_of_several_labels_are_weighed_column_by_column(data: SearchData) -> None:
    trainer = build_trainer(task_of(1.0, loss="binary_cross_entropy"), data, seed=3)
    stages = trainer.training_step
    images, labels, key = stages.fetch(seed=3, step=0)
    rows = F.one_hot(labels, 10).float()
    rows[:, 0] = 1
    batch = stages.mix(Decision(operator=Operator.CUTMIX), images, rows, key=key)
    assert batch.pasted is not None
    output = stages.forward(batch)
    assert output.attention is not None
    attention = output.attention[:, 0, 1:].reshape(len(rows), 4, 4)
    lam = attention_lam(batch.pasted.pairs.lam, batch.pasted.mask, attention, weight=1.0)
    targets = lam[:, None] * rows + (1 - lam[:, None]) * batch.pasted.pairs.partner_classes
    expected = F.binary_cross_entropy_with_logits(output.logits, targets)
    torch.testing.assert_close(stages.loss(output, batch), expected)


def test_a_network_without_attention_is_refused(data: SearchData) -> None:
    task = task_of(0.5, ModelConfig(width=2))
    expected = (
        r"^task\.operators\.attention_labels: expected a network with attention among all tokens "
        r"of an image, got none in 'small_cnn'$"
    )
    with pytest.raises(ConfigError, match=expected):
        check_model(task, data, operators=PASTING)
    check_model(task, data, operators=[Operator.MIXUP])
    check_model(task_of(0.5), data, operators=PASTING)


def test_it_goes_with_the_other_options_of_a_step() -> None:
    data = load_search_data(
        DataConfig(image_size=32, labels_per_class=2, test_size=2, reward_size=2, selection_size=2)
    )
    for fields in ({"gradient_checkpointing": True}, {"precision": "bf16", "freeze_body": 0.5}):
        trainer = TrainerConfig.model_validate({"epochs": 2, "batch_size": 10} | fields)
        task = task_of(0.5, ModelConfig(name="timm/test_vit"))
        trained = build_trainer(task.model_copy(update={"trainer": trainer}), data, seed=0)
        metrics = trained.train(Decision(operator=Operator.CUTMIX), num_steps=4)
        assert metrics.loss > 0
