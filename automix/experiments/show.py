"""The show command: contact sheets of operators on the images of a folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from automix.errors import DataError
from automix.experiments.common.mixed_picture import SPECTRAL, mixed_once
from automix.experiments.config import ShowConfig
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.reporting.contact_sheet import (
    ContactSheet,
    Originals,
    contact_sheet,
    write_contact_sheets,
)
from automix.schedule import Decision

_SMALLEST_SIDE = 8
_LARGEST_SIDE = 128
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


def show(folder: Path, config: ShowConfig) -> list[Path]:
    """Write a PNG per operator and one page of all into ``config.output``; return their paths.

    Images may lie in class folders or directly in ``folder``; there, each file is a class of its
    own. Saliency is that of `automix search photos/`, the spectral residual, as the page says.

    Raises:
        DataError: the folder has fewer than two images, or one cannot be read.
    """
    mixing = [operator for operator in OPERATOR_FACTS if operator is not Operator.NONE]
    paths = _image_paths(folder, config.pairs, seed=config.seed)
    images = _read_all(paths, config.size)
    names = sorted({_class_name(path, folder) for path in paths})
    labels = torch.tensor([names.index(_class_name(path, folder)) for path in paths])
    sheets = [
        make_sheet(Decision(operator=operator), images, labels, class_names=names, seed=config.seed)
        for operator in config.operators or mixing
    ]
    page = write_contact_sheets(config.output, sheets, title=f"{folder.name}: mixed")
    return [page, *sorted(config.output.rglob("*.png"))]


def _image_paths(folder: Path, count: int, *, seed: int) -> list[Path]:
    """Return ``count`` images, drawn from ``seed``, folders in turn."""
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of images, got none")
    by_folder: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES and path.is_file():
            by_folder.setdefault(path.parent, []).append(path)
    generator = np.random.default_rng(seed)
    queues = [[files[i] for i in generator.permutation(len(files))] for files in by_folder.values()]
    # Round robin over folders, so that few images show many classes.
    chosen: list[Path] = []
    while queues and len(chosen) < count:
        chosen += [queue.pop() for queue in queues][: count - len(chosen)]
        queues = [queue for queue in queues if queue]
    if len(chosen) < 2:
        raise DataError(f"{folder}: expected at least 2 images, got {len(chosen)}")
    return chosen


def _read_all(paths: list[Path], size: int | None) -> Tensor:
    """Return the middle squares of all images, (N, 3, size, size) uint8."""
    photographs = [_read(path) for path in paths]
    if size is None:
        # Small images are mixed as they are: enlarged, all that is salient in them is the border.
        shortest = min(min(photograph.size) for photograph in photographs)
        size = max(_SMALLEST_SIDE, min(shortest, _LARGEST_SIDE))
    fitted = [ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC) for image in photographs]
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in fitted])


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            # Phones store photographs sideways and say so in their EXIF data.
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: expected a readable image, got: {reason}") from None


def _class_name(path: Path, folder: Path) -> str:
    return path.stem if path.parent == folder else path.parent.name


def make_sheet(
    decision: Decision,
    images_BCHW: Tensor,
    labels_B: Tensor,
    *,
    class_names: Sequence[str],
    saliency_BHW: Tensor | None = None,
    seed: int = 0,
) -> ContactSheet:
    """Mix uint8 images of int64 classes as ``decision`` says, and lay the result out.

    Operators that need saliency get ``saliency_BHW``, or else the spectral residual, which the
    sheet then says.
    """
    batch = mixed_once(
        decision,
        images_BCHW,
        labels_B,
        num_classes=len(class_names),
        saliency_BHW=saliency_BHW,
        seed=seed,
    )
    originals = Originals(
        images=batch.images,
        class_names=class_names,
        saliency=batch.saliency,
        partners=batch.partners,
    )
    sheet = contact_sheet(batch.mixed, originals, decision=decision)
    if batch.saliency is None or saliency_BHW is not None:
        return sheet
    return dataclasses.replace(sheet, note=f"{sheet.note}; saliency: {SPECTRAL}")
