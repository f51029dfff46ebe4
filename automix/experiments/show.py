"""Show: what each operator does to a user's own images."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from automix.errors import DataError
from automix.experiments.config import ShowConfig
from automix.experiments.sheets import make_sheet
from automix.reporting.contact_sheet_html import write_contact_sheets
from automix.schedule import Decision
from automix.vocabulary import OPERATOR_FACTS, Operator

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


def show(folder: Path, config: ShowConfig) -> list[Path]:
    """Write a PNG per operator and one page of all into ``config.output``; return their paths.

    Images may lie in class folders or directly in ``folder``; there, each file is a class of its
    own. Saliency is the spectral residual, which needs no network.

    Raises:
        DataError: the folder has fewer than two images, or one cannot be read.
    """
    mixing = [operator for operator in OPERATOR_FACTS if operator is not Operator.NONE]
    paths = _image_paths(folder, config.pairs, seed=config.seed)
    images = torch.stack([_read(path, config.size) for path in paths])
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
    chosen: list[Path] = []
    while queues and len(chosen) < count:
        chosen += [queue.pop() for queue in queues][: count - len(chosen)]
        queues = [queue for queue in queues if queue]
    if len(chosen) < 2:
        raise DataError(f"{folder}: expected at least 2 images, got {len(chosen)}")
    return chosen


def _read(path: Path, size: int) -> Tensor:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        fitted = ImageOps.fit(upright, (size, size), Image.Resampling.BICUBIC)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: expected a readable image, got: {reason}") from None
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _class_name(path: Path, folder: Path) -> str:
    return path.stem if path.parent == folder else path.parent.name
