"""Learning rates by layer, frozen layers, frozen statistics, and activations computed again."""

from typing import Any, Literal

import pytest
import torch
from torch import nn

from automix.configuration.data import DataConfig
from automix.configuration.task import ModelConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import SearchData
from automix.operator_info import Operator
from automix.schedule import Decision
from automix.training.trainer import ClassifierTrainer, build_trainer, load_search_data
from automix.training.updates import AveragedWeights, make_optimizer, parameter_groups
from tests.equality import assert_same
from tests.training.conftest import MakeTrainer
from tests.training.test_trainer_determinism import snapshot

MIXUP = Decision(operator=Operator.MIXUP, probability=0.5)
CONFIG = TrainerConfig(
    learning_rate=0.25, head_learning_rate=0.75, layer_decay=0.5, weight_decay=1e-3
)
# 12 steps, of which the body is frozen in the first 3.
FIELDS: list[dict[str, Any]] = [
    {"layer_decay": 0.7},
    {"head_learning_rate": 0.5},
    {"freeze_body": 0.25},
    {"freeze_batch_norm": True},
    {"ema_warmup": False},
    {"class_weights": [1.0] * 9 + [3.0], "logit_adjustment": 1.0},
    {"layer_decay": 0.7, "freeze_body": 0.25, "optimizer": "adamw", "max_grad_norm": 0.1},
]


SMALL_DATA = load_search_data(
    DataConfig(image_size=32, labels_per_class=2, test_size=2, reward_size=2, selection_size=2)
)


def table_of(model: nn.Module, layers: list[tuple[str, ...]]) -> list[dict[str, Any]]:
    """Write the groups down by hand: beginnings of names, layer by layer."""
    named = list(model.named_parameters())
    rows = []
    for number, starts in enumerate(layers):
        is_head = number == len(layers) - 1
        scale = 3.0 if is_head else 0.5 ** (len(layers) - 1 - number)
        members = [parameter for name, parameter in named if name.startswith(starts)]
        for decay, chosen in (
            (1e-3, [p for p in members if p.ndim > 1]),
            (0.0, [p for p in members if p.ndim <= 1]),
        ):
            row = {"params": chosen, "weight_decay": decay, "lr_scale": scale, "is_head": is_head}
            rows += [row] if chosen else []
    return rows


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (
            "torchvision/resnet18",
            [
                ("conv1.", "bn1."),
                *((f"layer{stage}.{block}.",) for stage in (1, 2, 3, 4) for block in (0, 1)),
                ("fc.",),
            ],
        ),
        (
            "timm/test_vit",
            [
                ("cls_token", "pos_embed", "patch_embed."),
                *((f"blocks.{block}.",) for block in range(5)),
                ("blocks.5.", "norm."),
                ("head.",),
            ],
        ),
    ],
)
def test_groups_are_those_of_a_table(name: str, layers: list[tuple[str, ...]]) -> None:
    with torch.device("meta"):
        if name.startswith("timm"):
            model = pytest.importorskip("timm").create_model("test_vit", num_classes=3)
        else:
            torchvision = pytest.importorskip("torchvision")
            model = torchvision.models.resnet18(num_classes=3)
    groups, expected = parameter_groups(model, CONFIG), table_of(model, layers)
    assert len(groups) == len(expected)
    for group, row in zip(groups, expected, strict=True):
        assert list(map(id, group.pop("params"))) == list(map(id, row.pop("params")))
        assert group == row
    assert sum(p.numel() for row in table_of(model, layers) for p in row["params"]) == sum(
        p.numel() for p in model.parameters()
    )


def test_steps_are_those_of_an_optimizer_of_the_table(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(
        layer_decay=0.5, head_learning_rate=0.6, freeze_body=0.5, learning_rate_schedule="constant"
    )
    model = trainer.model
    layers = [("stage1",), ("stage2",), ("stage3",), ("head",)]
    rates = [0.2 * 0.5**3, 0.2 * 0.5**2, 0.2 * 0.5, 0.6]
    for step in range(12):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        trainer.train(Decision(operator=Operator.NONE), num_steps=1)
        state = trainer.training_step.optimizer.state
        for name, value in model.named_parameters():
            layer = next(i for i, starts in enumerate(layers) if name.startswith(starts))
            if step < 6 and layer < 3:
                torch.testing.assert_close(value, before[name], rtol=0, atol=0)
                assert not state[value]
            else:
                assert not torch.equal(value, before[name])
        rate_of = {
            name: group["lr"]
            for group in trainer.training_step.optimizer.param_groups
            for name, value in model.named_parameters()
            if any(value is parameter for parameter in group["params"])
        }
        for name, rate in rate_of.items():
            layer = next(i for i, starts in enumerate(layers) if name.startswith(starts))
            assert rate == pytest.approx(rates[layer])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_one_step_is_that_of_plain_optimizers_by_layer(
    optimizer: Literal["sgd", "adamw"],
) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False))
    config = TrainerConfig(
        optimizer=optimizer,
        learning_rate=0.01,
        layer_decay=0.5,
        learning_rate_schedule="constant",
    )
    twin = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 2, bias=False))
    twin.load_state_dict(model.state_dict())
    plain = [
        make_optimizer(layer, config.model_copy(update={"layer_decay": 1.0, "learning_rate": rate}))
        for layer, rate in zip(twin, (0.005, 0.01), strict=True)
    ]
    ours = make_optimizer(model, config)
    for group in ours.param_groups:
        group["lr"] = config.learning_rate * group["lr_scale"]
    images = torch.rand(4, 3)
    for _ in range(3):
        for network, optimizers in ((model, [ours]), (twin, plain)):
            network.zero_grad()
            network(images).square().sum().backward()
            for one in optimizers:
                one.step()
    assert_same(model.state_dict(), twin.state_dict())


@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: next(iter(fields)))
def test_a_resumed_run_gives_the_same_bits(
    make_trainer: MakeTrainer, fields: dict[str, Any]
) -> None:
    whole, cut = make_trainer(seed=1, **fields), make_trainer(seed=1, **fields)
    whole.train(MIXUP, num_steps=12)
    # In the middle of the frozen stretch, and after it.
    for num_steps in (2, 5, 5):
        cut.train(MIXUP, num_steps=num_steps)
        state = snapshot(cut)
        cut = make_trainer(seed=7, **fields)
        cut.load_state_dict(state)  # type: ignore[arg-type]
    assert_same(snapshot(whole), snapshot(cut))
    plain = make_trainer(seed=1)
    plain.train(MIXUP, num_steps=12)
    heads = [dict(trainer.evaluated_model.named_parameters()) for trainer in (plain, whole)]
    assert not torch.equal(heads[0]["head.weight"], heads[1]["head.weight"])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_resumed_residual_network_and_transformer_give_the_same_bits(name: str) -> None:
    pytest.importorskip("timm", reason="needs the extra timm")
    fields = {
        "layer_decay": 0.7,
        "head_learning_rate": 0.5,
        "freeze_body": 0.5,
        "freeze_batch_norm": name == "test_resnet",
        "ema_decay": 0.9,
        "optimizer": "adamw",
    }

    def trained(seed: int) -> ClassifierTrainer:
        task = TaskConfig(
            model=ModelConfig(name=f"timm/{name}"),
            trainer=TrainerConfig.model_validate({"epochs": 2, "batch_size": 10} | fields),
        )
        return build_trainer(task, SMALL_DATA, seed=seed)

    whole, cut = trained(1), trained(1)
    whole.train(MIXUP, num_steps=4)
    # In the middle of the frozen stretch, at its end, and after it.
    for _ in range(4):
        cut.train(MIXUP, num_steps=1)
        state = snapshot(cut)
        cut = trained(7)
        cut.load_state_dict(state)  # type: ignore[arg-type]
    assert_same(snapshot(whole), snapshot(cut))


def test_a_reset_run_gives_the_same_bits(make_trainer: MakeTrainer) -> None:
    fields: dict[str, Any] = {"layer_decay": 0.7, "freeze_body": 0.5}
    fresh, used = make_trainer(seed=1, **fields), make_trainer(seed=2, **fields)
    used.train(MIXUP, num_steps=12)
    used.reset(1)
    for trainer in (fresh, used):
        trainer.train(MIXUP, num_steps=12)
    assert_same(fresh.model.state_dict(), used.model.state_dict())


def test_a_frozen_body_has_no_graph(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(freeze_body=0.5)
    stages = trainer.training_step
    stages.train_mode()
    images, labels, key = stages.fetch(seed=0, step=0)
    batch = stages.mix(MIXUP, images, labels, key=key)
    stages.backward(stages.loss(stages.forward(batch), batch))
    with_gradient = [name for name, p in trainer.model.named_parameters() if p.grad is not None]
    assert with_gradient == ["head.weight", "head.bias"]
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_frozen_statistics_stay_as_they_are(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(freeze_batch_norm=True)
    buffers = {name: value.clone() for name, value in trainer.model.named_buffers()}
    scales = [m.weight.clone() for m in trainer.model.modules() if isinstance(m, nn.BatchNorm2d)]
    # Saliency passes put the modes of the layers back.
    trainer.train(Decision(operator=Operator.SALIENCYMIX), num_steps=6)
    assert_same(buffers, dict(trainer.model.named_buffers()))
    after = [m.weight for m in trainer.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(torch.equal(old, new) for old, new in zip(scales, after, strict=True))


def test_an_average_without_warmup_has_one_decay() -> None:
    source = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(source.weight)
    average = AveragedWeights(source, decay=0.9, warmup=False)
    assert [average.decay_at(step) for step in (0, 10, 1000)] == [0.9] * 3
    expected = 0.0
    for step in range(5):
        nn.init.constant_(source.weight, step + 1.0)
        average.update_(step)
        expected = 0.9 * expected + 0.1 * (step + 1)
    assert next(average.model.parameters()).item() == pytest.approx(expected)


def _trained(data: SearchData, **fields: Any) -> ClassifierTrainer:
    task = TaskConfig(
        model=ModelConfig(name="timm/test_resnet", drop_path=0.2),
        trainer=TrainerConfig(epochs=1, batch_size=10, **fields),
    )
    trainer = build_trainer(task, data, seed=3)
    trainer.train(MIXUP, num_steps=2)
    return trainer


def test_checkpointed_gradients_are_the_same() -> None:
    pytest.importorskip("timm", reason="needs the extra timm")
    # With stochastic depth, whose draws come again, and batch norm, which counts each batch once.
    plain, again = (_trained(SMALL_DATA, gradient_checkpointing=on) for on in (False, True))
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, msg=name)
