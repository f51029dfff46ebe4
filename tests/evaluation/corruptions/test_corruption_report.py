import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from automix.errors import DataError
from automix.evaluation.corruptions.registry import (
    PUBLISHED_SUMS,
    SEVERITIES,
    Corruption,
    corrupt,
    read_published,
    verify_published,
)
from automix.evaluation.corruptions.report import (
    CorruptionErrors,
    CorruptionSource,
    own_corruption_errors,
    published_corruption_errors,
    report_corruptions,
)
from automix.evaluation.inference import EvaluationImages
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
    images, stored_labels = read_published(tmp_path, Corruption.SHOT_NOISE, 4)
    assert torch.equal(stored_labels, labels)
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

    errors = {
        corruption: published_corruption_errors(predict, tmp_path, corruption, batch_size=3)
        for corruption in Corruption
    }
    report = report_corruptions(errors, CorruptionSource.PUBLISHED)
    assert report.source is CorruptionSource.PUBLISHED
    assert report.num_images == 4
    assert report.errors[Corruption.FOG] == (1, 1, 1, 1, 1)
    assert report.errors[Corruption.FROST] == (0, 0, 0, 0, 0.5)
    assert report.unnormalized_mean_corruption_error == pytest.approx(5.5 / 75)


def test_own_report_corrupts_with_the_seed_whatever_the_batches() -> None:
    stored = make_photos(12)
    labels = predict_brightness(stored).argmax(1)
    images = EvaluationImages.whole(stored, labels)
    errors = {
        corruption: own_corruption_errors(predict_brightness, images, corruption, seed=9)
        for corruption in Corruption
    }
    report = report_corruptions(errors, CorruptionSource.OWN)
    assert report.source is CorruptionSource.OWN
    for corruption in (Corruption.BRIGHTNESS, Corruption.SNOW):
        for severity in SEVERITIES:
            corrupted = corrupt(stored, corruption, severity, seed=9)
            wrong = (predict_brightness(corrupted).argmax(1) != labels).double().mean().item()
            assert report.errors[corruption][severity - 1] == pytest.approx(wrong)
    small = dataclasses.replace(images, batch_size=5)
    again = own_corruption_errors(predict_brightness, small, Corruption.SNOW, seed=9)
    assert again == errors[Corruption.SNOW]
    assert report.errors[Corruption.BRIGHTNESS][4] > report.errors[Corruption.CONTRAST][4]
    content = json.loads(json.dumps(dataclasses.asdict(report)))
    assert len(content["errors"]) == 15
    assert content["unnormalized_mean_corruption_error"] == pytest.approx(
        np.mean(list(report.errors.values()))
    )


def test_a_part_of_the_images_meets_the_same_corruption_as_in_the_whole() -> None:
    stored = make_photos(12)
    labels = torch.arange(12) % 2
    seen: list[Tensor] = []

    def predict(images: Tensor) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images), 2)

    whole = EvaluationImages.whole(stored, labels)
    own_corruption_errors(predict, whole, Corruption.GAUSSIAN_NOISE, seed=1)
    chosen = torch.tensor([2, 9])
    own_corruption_errors(predict, whole.subset(chosen), Corruption.GAUSSIAN_NOISE, seed=1)
    assert all(
        torch.equal(part, all_[chosen]) for all_, part in zip(seen[:5], seen[5:], strict=True)
    )


def test_a_report_needs_every_corruption_of_as_many_images() -> None:
    whole = CorruptionErrors(num_images=4, errors=(0.0,) * 5)
    errors = dict.fromkeys(Corruption, whole)
    with pytest.raises(ValueError, match=r"expected all 15 corruptions .* got 15 of \[3, 4\]"):
        report_corruptions(
            errors | {Corruption.FOG: dataclasses.replace(whole, num_images=3)},
            CorruptionSource.OWN,
        )
    del errors[Corruption.FOG]
    with pytest.raises(ValueError, match="expected all 15 corruptions"):
        report_corruptions(errors, CorruptionSource.OWN)


def test_published_files_are_checked_against_their_sums(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    files = {path.stem: hashlib.md5(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    sums = {"another": dict.fromkeys(files, "0" * 32), "ours": files}
    assert verify_published(tmp_path, sums=sums) == "ours"
    with pytest.raises(
        DataError, match=r"labels\.npy: expected the published file of CIFAR-10-C or"
    ):
        verify_published(tmp_path)
    with (tmp_path / "snow.npy").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(DataError, match=r"snow\.npy: expected the published file of ours \(MD5"):
        verify_published(tmp_path, sums=sums)
    (tmp_path / "fog.npy").unlink()
    (tmp_path / "snow.npy").unlink()
    with pytest.raises(DataError, match=r"snow\.npy: expected a readable file, got: no such"):
        verify_published(tmp_path, sums=sums)


def test_sums_are_known_of_every_published_file() -> None:
    for files in PUBLISHED_SUMS.values():
        assert set(files) == {*(corruption.value for corruption in Corruption), "labels"}
    every = [value for files in PUBLISHED_SUMS.values() for value in files.values()]
    assert len(set(every)) == 32
    assert all(len(value) == 32 for value in every)


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
    with pytest.raises(DataError, match=r"fog\.npy: expected a readable file"):
        read_published(tmp_path, Corruption.FOG, 1)
    np.save(tmp_path / "labels.npy", np.zeros(7, dtype=np.uint8))
    with pytest.raises(DataError, match=r"labels\.npy: expected one integer for each of 20"):
        read_published(tmp_path, Corruption.FROST, 1)
    with (tmp_path / "snow.npy").open("wb") as stream:
        np.savez(stream, a=np.zeros(3))
    with pytest.raises(DataError, match=r"snow\.npy: expected one NumPy array"):
        read_published(tmp_path, Corruption.SNOW, 1)
