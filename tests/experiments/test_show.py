"""Contact sheets of a user's own images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import automix.experiments.show as module
from automix.errors import DataError
from automix.experiments.config import ShowConfig
from automix.experiments.show import make_sheet, show
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.reporting.contact_sheet import ContactSheet
from automix.schedule import Decision


def save_blob(path: Path, size: tuple[int, int], *, seed: int) -> None:
    """Write a picture of one bright disc on a dark, noisy ground; size is (width, height)."""
    generator = np.random.default_rng(seed)
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    center = generator.uniform(0.3, 0.7, 2) * (height, width)
    distance = np.hypot(rows - center[0], columns - center[1])
    pixels = generator.integers(0, 40, (height, width, 3))
    pixels[distance < min(size) / 5] = generator.integers(150, 256, 3)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(6):
        save_blob(folder / f"class {index % 3}" / f"{index}.png", (40, 32), seed=index)
    return folder


def seen_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch, config: ShowConfig
) -> tuple[Tensor, list[Path]]:
    """Return the images that were mixed, and the files."""
    seen: list[Tensor] = []

    def watched(
        decision: Decision,
        images: Tensor,
        labels: Tensor,
        *,
        class_names: list[str],
        seed: int,
    ) -> ContactSheet:
        seen.append(images)
        return make_sheet(decision, images, labels, class_names=class_names, seed=seed)

    monkeypatch.setattr(module, "make_sheet", watched)
    paths = show(folder, config)
    return seen[0], paths


def test_a_sheet_for_each_operator(photographs: Path, tmp_path: Path) -> None:
    paths = show(photographs, ShowConfig(output=tmp_path / "sheets"))
    names = {operator.value for operator in OPERATOR_FACTS} - {Operator.NONE.value}
    assert {path.stem for path in paths[1:]} == names
    assert all((tmp_path / "sheets" / f"{name}.html").is_file() for name in names)


@pytest.mark.parametrize(
    ("sizes", "requested", "side"),
    [
        ([(40, 32), (32, 50)], None, 32),  # small images stay as they are
        ([(300, 200), (500, 400)], None, 128),
        ([(300, 200), (20, 30)], None, 20),
        ([(6, 6), (6, 7)], None, 8),
        ([(40, 32), (32, 50)], 64, 64),
    ],
)
def test_images_are_mixed_at(
    sizes: list[tuple[int, int]],
    requested: int | None,
    side: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, size in enumerate(sizes):
        save_blob(folder / f"{index}.png", size, seed=index)
    config = ShowConfig(operators=(Operator.CUTMIX,), size=requested, output=tmp_path / "sheets")
    images, _ = seen_by(folder, monkeypatch, config)
    assert images.shape == (2, 3, side, side)


def test_the_solvers_have_something_to_choose(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ShowConfig(operators=(Operator.MIXUP,), output=tmp_path / "sheets")
    images, _ = seen_by(photographs, monkeypatch, config)
    labels = torch.arange(len(images)) % 3
    for operator in (Operator.PUZZLEMIX, Operator.COMIXUP):
        sheet = make_sheet(Decision(operator=operator), images, labels, class_names=["a", "b", "c"])
        assert any(0.05 < row.lam < 0.95 for row in sheet.rows)


def test_what_is_refused(photographs: Path, tmp_path: Path) -> None:
    config = ShowConfig(output=tmp_path / "sheets")
    with pytest.raises(DataError, match="nowhere: expected a folder of images, got none"):
        show(tmp_path / "nowhere", config)
    (photographs / "class 0" / "damaged.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"damaged\.png: expected a readable image"):
        show(photographs, ShowConfig(output=tmp_path / "sheets", pairs=64))
    assert not (tmp_path / "sheets").exists()
