import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from automix.errors import DataError
from automix.evaluation.corruptions.published import read_published
from automix.evaluation.corruptions.registry import SEVERITIES, Corruption, corrupt
from automix.evaluation.corruptions.report import (
    CorruptionSource,
    report_own_corruptions,
    report_published_corruptions,
)
from tests.evaluation.photos import make_photos


def predict_brightness(images: Tensor) -> Tensor:
    """Class 1 is a bright image."""
    level = images.float().mean((1, 2, 3)) / 255
    return torch.stack((0.5 - level, level - 0.5), dim=1)


def write_arrays(folder: Path, num_images: int = 4) -> Tensor:
    """Each pixel of an array says its corruption, severity and image."""
    labels = np.arange(num_images) % 2
    np.save(folder / "labels.npy", np.tile(labels, 5).astype(np.uint8))
    for number, corruption in enumerate(Corruption):
        images = np.zeros((5 * num_images, 6, 7, 3), dtype=np.uint8)
        images[..., 0] = number
        images[..., 1] = np.repeat(SEVERITIES, num_images)[:, None, None]
        images[..., 2] = np.tile(200 * labels, 5)[:, None, None]
        images[:, 0, 3] = 255
        np.save(folder / f"{corruption.value}.npy", images)
    return torch.from_numpy(labels)


def test_published_arrays_are_read_by_severity(tmp_path: Path) -> None:
    labels = write_arrays(tmp_path)
    images, found = read_published(tmp_path, Corruption.SHOT_NOISE, 4)
    assert torch.equal(found, labels)
    assert (images.shape, images.dtype) == ((4, 3, 6, 7), torch.uint8)
    assert images.is_contiguous()
    assert images[:, :, 1, 1].tolist() == [[1, 4, 200 * label] for label in labels.tolist()]
    assert (images[:, :, 0, 3] == 255).all()


def test_published_report_counts_errors_per_cell(tmp_path: Path) -> None:
    write_arrays(tmp_path)

    def predict(images: Tensor) -> Tensor:
        # Wrong for every image of fog, and at severity 5 of frost for those of class 0.
        number, severity, label = (images[:, channel, 1, 1].long() for channel in range(3))
        answer = label // 200
        answer = torch.where(number == list(Corruption).index(Corruption.FOG), 1 - answer, answer)
        is_frost = number == list(Corruption).index(Corruption.FROST)
        answer = torch.where(is_frost & (severity == 5), 1, answer)
        return F.one_hot(answer, 2).float()

    report = report_published_corruptions(predict, tmp_path)
    assert report.source is CorruptionSource.PUBLISHED
    assert report.num_images == 4
    assert report.errors[Corruption.FOG] == (1, 1, 1, 1, 1)
    assert report.errors[Corruption.FROST] == (0, 0, 0, 0, 0.5)
    assert report.mean_error == pytest.approx(5.5 / 75)


def test_own_report_corrupts_with_the_seed() -> None:
    images = make_photos(30)
    labels = predict_brightness(images).argmax(1)
    report = report_own_corruptions(predict_brightness, images, labels, seed=9)
    assert report.source is CorruptionSource.OWN
    for corruption in (Corruption.BRIGHTNESS, Corruption.SNOW):
        for severity in SEVERITIES:
            corrupted = corrupt(images, corruption, severity, seed=9)
            wrong = (predict_brightness(corrupted).argmax(1) != labels).double().mean().item()
            assert report.errors[corruption][severity - 1] == pytest.approx(wrong)
    assert report.errors[Corruption.BRIGHTNESS][4] > report.errors[Corruption.CONTRAST][4]
    content = json.loads(json.dumps(dataclasses.asdict(report)))
    assert len(content["errors"]) == 15
    assert content["mean_error"] == pytest.approx(np.mean(list(report.errors.values())))


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    with pytest.raises(ValueError, match="severity: expected 1 to 5, got 0"):
        read_published(tmp_path, Corruption.FOG, 0)
    (tmp_path / "fog.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"fog\.npy: expected a NumPy array"):
        read_published(tmp_path, Corruption.FOG, 1)
    (tmp_path / "fog.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"fog\.npy: expected a NumPy array"):
        read_published(tmp_path, Corruption.FOG, 1)
    np.save(tmp_path / "fog.npy", np.zeros((20, 6, 7, 3), dtype=np.float32))
    with pytest.raises(DataError, match=r"fog\.npy: expected uint8 images"):
        read_published(tmp_path, Corruption.FOG, 1)
    (tmp_path / "fog.npy").unlink()
    with pytest.raises(DataError, match=r"fog\.npy: expected a readable NumPy array"):
        read_published(tmp_path, Corruption.FOG, 1)
    np.save(tmp_path / "labels.npy", np.zeros(7, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels\.npy: expected one integer for each of 20"):
        read_published(tmp_path, Corruption.FROST, 1)
    with (tmp_path / "snow.npy").open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    with pytest.raises(DataError, match=r"snow\.npy: expected one NumPy array"):
        read_published(tmp_path, Corruption.SNOW, 1)
