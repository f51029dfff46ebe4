"""Examples that a user changed or cut: right, refused or warned of, never silently wrong."""

import importlib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Subset

FOLDER = Path(__file__).parents[2] / "examples"
EXTRAS = {
    "timm_loop": "timm",
    "fabric": "lightning",
    "lightning_callback": "lightning",
    "accelerate_loop": "accelerate",
    "fastai_learner": "fastai",
    "transformers_trainer": "transformers",
}
# Loops in which the user writes the step; the others' are the library's.
LOOPS = ["plain_pytorch", "timm_loop", "fabric", "accelerate_loop", "augment_then_mix"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*mode.chained_assignment"),
]


def mutated(name: str, *changes: tuple[str, str]) -> Callable[[], float]:
    """Return the program of an example after changes of its text."""
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason=f"{EXTRAS[name]} is an extra")
    source = (FOLDER / f"{name}.py").read_text()
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    module = types.ModuleType(f"mutated_{name}")
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    program: Callable[[], float] = module.main
    return program


@pytest.fixture(autouse=True)
def digits(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A tenth of the digits, for programs that are imported from the repository."""
    monkeypatch.syspath_prepend(FOLDER.parent)
    module = importlib.import_module("examples.digits")
    train, test = module.datasets()
    few = Subset(train, range(150))
    monkeypatch.setattr(module, "datasets", lambda: (few, test))
    return module


@pytest.mark.parametrize("name", LOOPS)
def test_labels_in_the_place_of_targets_are_warned_of(name: str) -> None:
    change = ("model(mixed), targets)", "model(mixed), labels)")
    changes = [change]
    if name == "timm_loop":
        changes.append(("SoftTargetCrossEntropy()", "torch.nn.CrossEntropyLoss()"))
    with pytest.raises(UserWarning, match=r"^targets: expected a loss that takes the soft targets"):
        mutated(name, *changes)()


@pytest.mark.parametrize("name", LOOPS)
def test_a_forgotten_state_is_refused_or_warned_of(name: str) -> None:
    bound = "    mixup_fn = ScheduledMix(" if name == "timm_loop" else "    mix = ScheduledMix("
    # As after the load of a checkpoint of network and optimizer.
    stepped = (
        "    for parameter in model.parameters():\n"
        "        parameter.grad = torch.zeros_like(parameter)\n"
        "    optimizer.step()\n"
    )
    expected = {
        "accelerate_loop": "has done 1 steps, so it resumes at batch 1",
        "timm_loop": "has done 1 steps, so it resumes at batch 1",
    }.get(name, "has done steps, does not count them; load mix.state_dict")
    with pytest.raises((UserWarning, ValueError), match=expected):
        mutated(name, (bound, stepped + bound))()


@pytest.mark.parametrize("name", [*LOOPS, "lightning_callback", "fastai_learner"])
def test_worker_processes_make_no_difference(
    name: str, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(workers: int) -> Callable[[], float]:
        def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
            # In order: some libraries draw from the generator of a loader as its workers start.
            train, test = digits.datasets()
            return DataLoader(train, 50, num_workers=workers), DataLoader(test, 297)

        monkeypatch.setattr(digits, "loaders", loaders)
        return mutated(name)

    assert program(0)() == program(1)()


def test_worker_processes_of_a_collator_are_right_or_refused() -> None:
    workers = ("collate_fn=collate)", "collate_fn=collate, num_workers=1)")
    mutated("torchvision_collate", workers)()
    scheduled = (
        "    def collate(",
        "    from automix.integrations import ScheduledMix\n"
        "    mix = ScheduledMix.recommended(num_classes=NUM_CLASSES, total_steps=9)\n\n"
        "    def collate(",
    )
    called = ("mixup_or_fmix(default_collate(items))", "mix(*default_collate(items))")
    with pytest.raises(RuntimeError, match="ScheduledMix: expected a call in the training process"):
        mutated("torchvision_collate", workers, scheduled, called)()


def test_the_trainers_own_loss_is_refused() -> None:
    collates = (
        "train_dataset=NamedDigits())",
        "train_dataset=NamedDigits(), data_collator=collate)",
    )
    left_out = ("        mix_in_trainer(trainer,", "        (trainer,")
    defined = (
        "def main()",
        "def collate(items):\n"
        "    from automix.integrations.torchvision_transform import OperatorTransform\n"
        "    from torch.utils.data import default_collate\n"
        "    batch = default_collate(items)\n"
        "    mix = OperatorTransform('mixup', num_classes=NUM_CLASSES)\n"
        "    images, labels = mix(batch['pixel_values'], batch['labels'])\n"
        "    return {'pixel_values': images, 'labels': labels}\n\n\n"
        "def main()",
    )
    with pytest.raises(RuntimeError, match="binary cross-entropy of soft labels"):
        mutated("transformers_trainer", collates, left_out, defined)()
