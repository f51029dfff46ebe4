"""A loop that mixes images and trains on something else hears it; others compute as before."""

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from automix.integrations import ScheduledMix
from automix.integrations.targets_in_use import WatchedTargets
from automix.schedule import Decision, constant_schedule

MIXUP = constant_schedule(Decision(operator="mixup"))
IMAGES, LABELS = torch.rand(4, 3, 8, 8), torch.arange(4) % 3
LOGITS = torch.randn(4, 3, requires_grad=True)


class Outputs(dict[str, Tensor]):
    """Outputs as those of Transformers."""


class Classifier(nn.Module):
    """A network with a configuration and a loss of its own, as those of Transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(192, 3)
        self.config = type("Config", (), {"problem_type": None})()

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Outputs:
        logits = self.layer(images.flatten(1))
        if labels is None:
            return Outputs(logits=logits)
        if labels.is_floating_point():
            self.config.problem_type = "multi_label_classification"
            return Outputs(loss=F.binary_cross_entropy_with_logits(logits, labels))
        return Outputs(loss=F.cross_entropy(logits, labels))


def train(loss_of: Any, *, accumulation: int = 1, knows: str = "model") -> list[type]:
    model = Classifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    knowledge: Any = {"model": model, "optimizer": optimizer, "nothing": None}[knows]
    options = {} if knows == "nothing" else {knows: knowledge}
    mix, kinds = ScheduledMix(MIXUP, num_classes=3, total_steps=6, **options), []
    for step in range(6):
        images, targets = mix(IMAGES, LABELS)
        kinds.append(type(targets))
        torch.autograd.backward(loss_of(model, images, targets))
        if (step + 1) % accumulation == 0:
            optimizer.step()
    return kinds


def soft(model: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(images)["logits"], targets)


def hard(model: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(images)["logits"], LABELS)


def of_the_network(model: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = model(images, targets)["loss"]
    return loss


@pytest.mark.parametrize("knows", ["model", "optimizer"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_loss_of_labels_is_warned_of_once(knows: str, accumulation: int) -> None:
    with pytest.warns(UserWarning, match=r"^targets: expected a loss that takes .*") as caught:
        train(hard, accumulation=accumulation, knows=knows)
    assert len(caught) == 1


@pytest.mark.parametrize("knows", ["model", "optimizer", "nothing"])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_loss_of_the_targets_hears_nothing(knows: str, accumulation: int) -> None:
    kinds = train(soft, accumulation=accumulation, knows=knows)
    watched = [] if knows == "nothing" else [WatchedTargets]
    assert kinds == watched + [Tensor] * (6 - len(watched))


def test_a_binary_loss_of_the_networks_own_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"^config.problem_type: expected a loss for soft"):
        train(of_the_network)


def test_batches_that_are_looked_at_are_no_matter() -> None:
    mix = ScheduledMix(MIXUP, num_classes=3, total_steps=6, model=Classifier())
    for _ in range(3):
        mix(IMAGES, LABELS)


def watched() -> tuple[WatchedTargets, Tensor]:
    targets = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    return targets.as_subclass(WatchedTargets), targets


USES: dict[str, Any] = {
    "function": lambda targets: F.cross_entropy(LOGITS, targets),
    "module": lambda targets: nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, targets),
    "product": lambda targets: -(targets * LOGITS.log_softmax(1)).sum(),
    "from the right": lambda targets: (LOGITS.log_softmax(1) * targets).sum(),
    "list": lambda targets: torch.stack([targets, targets]).sum(),
    "keyword": lambda targets: F.cross_entropy(LOGITS, target=targets),
    "batched": lambda targets: torch.vmap(F.cross_entropy)(LOGITS, targets),
    "compiled": lambda targets: torch.compile(F.cross_entropy, backend="eager", fullgraph=True)(
        LOGITS, targets
    ),
}


@pytest.mark.parametrize("name", USES)
def test_every_use_is_seen_and_computes_the_same(name: str) -> None:
    targets, plain = watched()
    with warnings.catch_warnings():
        # Of the compiler, about its own modules.
        warnings.simplefilter("ignore")
        used, expected = USES[name](targets), USES[name](plain)
    assert type(used) is Tensor
    assert torch.equal(used, expected)
    assert targets.is_used


def test_copies_and_files_are_plain() -> None:
    targets, plain = watched()
    file = io.BytesIO()
    torch.save({"targets": targets}, file)
    file.seek(0)
    for other in (copy.deepcopy(targets), torch.load(file, weights_only=True)["targets"]):
        assert type(other) is Tensor
        assert torch.equal(other, plain)
