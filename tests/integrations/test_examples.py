"""The programs in `examples/` run as they are, and learn."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
EXTRAS = {
    "timm_loop": "timm",
    "lightning_callback": "lightning",
    "fabric": "lightning",
    "transformers_trainer": "transformers",
    "accelerate_loop": "accelerate",
    "fastai_learner": "fastai",
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "digits"))


# Of fastai's imports.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*mode.chained_assignment")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("name", NAMES)
def test_an_example_learns(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in EXTRAS:
        pytest.importorskip(EXTRAS[name], reason=f"{EXTRAS[name]} is an extra")
    monkeypatch.chdir(tmp_path)
    # Before the folders of tests, one of which holds another module of that name.
    monkeypatch.syspath_prepend(FOLDER.parent)
    accuracy: float = importlib.import_module(f"examples.{name}").main()
    # Ten classes; a few epochs of each reach 0.85 or more.
    assert accuracy > 0.7
    assert not list(tmp_path.iterdir())


def test_augmentation_of_kornia_comes_first_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kornia", reason="kornia is an extra")
    monkeypatch.syspath_prepend(FOLDER.parent)
    assert importlib.import_module("examples.augment_then_mix").main("kornia") > 0.7


def test_there_is_one_for_each_kind_of_loop() -> None:
    assert {"plain_pytorch", "torchvision_collate", "augment_then_mix", *EXTRAS} == set(NAMES)
