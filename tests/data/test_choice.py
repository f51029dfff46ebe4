"""Whether a folder is decoded once or streamed: chosen by size, said in the log, forced at will."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import automix.data.load
import automix.data.sources.folder
import automix.data.splits
from automix.configuration.data import DataConfig
from automix.data.load import load_data
from automix.data.sources.decode import ImageFormat, read_image
from automix.data.splits import Split, StreamedSplit, format_bytes, main_memory
from tests.data.conftest import WriteFolder

Configure = Callable[..., DataConfig]
# 22 images of the folder below, 3 x 4 x 6 bytes each.
DECODED = 22 * 3 * 4 * 6


def kind_of(config: DataConfig) -> type:
    return type(load_data(config).train)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    def set_memory(size: int | None) -> None:
        monkeypatch.setattr(automix.data.load, "main_memory", lambda: size)

    return set_memory


def test_auto_decodes_what_takes_at_most_half_of_the_memory(
    write_folder: WriteFolder,
    folder_config: Configure,
    memory: Callable[[int | None], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    config = folder_config(write_folder(), image_size=[4, 6], loader_workers=0)
    memory(2 * DECODED)
    assert kind_of(config) is Split
    assert (
        "resident: 22 images of 3 x 4 x 6 take 1.5 KiB, at most half of the memory" in caplog.text
    )
    memory(2 * DECODED - 1)
    assert kind_of(config) is StreamedSplit
    assert "streaming: 22 images of 3 x 4 x 6 take 1.5 KiB, more than half of" in caplog.text
    memory(None)
    assert kind_of(config) is Split


def test_gray_images_take_a_third_and_unknown_sizes_are_decoded(
    write_folder: WriteFolder, folder_config: Configure, memory: Callable[[int | None], None]
) -> None:
    root = write_folder(mode="L")
    memory(2 * DECODED // 3)
    assert kind_of(folder_config(root, image_size=[4, 6])) is Split
    memory(1)
    assert kind_of(folder_config(root)) is Split


def test_the_choice_can_be_forced(
    write_folder: WriteFolder,
    folder_config: Configure,
    memory: Callable[[int | None], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    root = write_folder()
    memory(1)
    assert kind_of(folder_config(root, image_size=[4, 6], loading="resident")) is Split
    assert f"{root}: resident, as configured" in caplog.text
    memory(None)
    assert kind_of(folder_config(root, image_size=[4, 6], loading="streaming")) is StreamedSplit
    assert f"{root}: streaming, as configured" in caplog.text


def test_no_training_image_is_decoded_to_load_a_streamed_folder(
    write_folder: WriteFolder, folder_config: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_folder(train=8, val=2)
    read: list[Path] = []

    def recorded(file: Path, image_format: ImageFormat) -> NDArray[np.uint8]:
        read.append(file)
        return read_image(file, image_format)

    for module in (automix.data.sources.folder, automix.data.splits):
        monkeypatch.setattr(module, "read_image", recorded)
    values = {"image_size": [4, 6], "loading": "streaming", "normalization": "imagenet"}
    load_data(folder_config(root, **values))
    assert {file.relative_to(root).parts[0] for file in read} == {"val", "test"}
    assert len(read) == len(set(read)) == 10
    read.clear()
    load_data(folder_config(root, **values))
    assert read == []


def test_a_container_has_what_its_limit_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    physical = main_memory()
    assert physical is None or physical > 2**20
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(automix.data.splits, "_MEMORY_LIMITS", (limit, tmp_path / "missing"))
    for text, expected in (("max\n", None), ("4096\n", 4096)):
        limit.write_text(text)
        memory = main_memory()
        assert memory is not None
        assert memory == expected if expected else memory > 2**20


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (60_000 * 3 * 16 * 16, "43.9 MiB"),
        (2**30 - 1, "1024.0 MiB"),
        (2**30, "1.0 GiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_sizes_are_told_in_a_unit_that_fits(count: int, text: str) -> None:
    assert format_bytes(count) == text
