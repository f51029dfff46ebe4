"""The cache of decoded images: decoded once, checked, rebuilt when damaged or out of date."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from automix.configuration.data import DataConfig
from automix.data.load import load_data
from automix.data.pools import images_checksum
from automix.data.sources import packed
from automix.data.splits import Split
from automix.errors import DataError

Configure = Callable[..., DataConfig]
WriteFolder = Callable[..., Path]


@pytest.fixture
def config(write_folder: WriteFolder, folder_config: Configure) -> DataConfig:
    return folder_config(write_folder())


def decoded_by(config: DataConfig) -> tuple[str, int]:
    """Return the fingerprint, and how many images had to be decoded."""
    reports: list[tuple[int, int]] = []
    data = load_data(config, progress=lambda done, total: reports.append((done, total)))
    return data.fingerprint, len(reports)


def pack_files(config: DataConfig, pattern: str) -> list[Path]:
    return sorted(config.cache_folder.glob(pattern))


def test_images_are_decoded_once(config: DataConfig) -> None:
    reports: list[tuple[int, int]] = []
    load_data(config, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(n, 16) for n in range(1, 17)] + [(n, 6) for n in range(1, 7)]
    assert decoded_by(config)[1] == 0
    assert not [file for file in config.cache_folder.iterdir() if file.suffix == ".tmp"]


def test_other_splits_use_the_same_pack(config: DataConfig) -> None:
    load_data(config)
    other = config.model_copy(update={"split_seed": 1, "labels_per_class": 2})
    assert decoded_by(other)[1] == 0


def test_the_pack_describes_itself(config: DataConfig) -> None:
    load_data(config)
    images = np.load(pack_files(config, "folder-train-*.npy")[0], allow_pickle=False)
    record = json.loads(pack_files(config, "folder-train-*.json")[0].read_text())
    assert images.shape == tuple(record["shape"]) == (16, 3, 4, 6)
    assert images.dtype == np.uint8
    assert record["labels"] == [0] * 8 + [1] * 8
    assert record["class_names"] == ["cat", "dog"]
    assert record["format"] == "automix-images"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the list of maps is Linux's")
def test_a_whole_part_is_mapped_and_writing_does_not_reach_the_file(config: DataConfig) -> None:
    data = load_data(config)
    file = pack_files(config, "folder-test-*.npy")[0]
    with Path("/proc/self/maps").open() as maps:
        assert any(str(file) in line for line in maps)
    before = file.read_bytes()
    data.test.images.zero_()
    assert file.read_bytes() == before
    assert load_data(config).test.images.any()


def flip_a_pixel(config: DataConfig) -> None:
    file = pack_files(config, "folder-train-*.npy")[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def truncate_the_images(config: DataConfig) -> None:
    file = pack_files(config, "folder-train-*.npy")[0]
    file.write_bytes(file.read_bytes()[:-5])


def empty_the_images(config: DataConfig) -> None:
    pack_files(config, "folder-train-*.npy")[0].write_bytes(b"")


def lose_the_images(config: DataConfig) -> None:
    pack_files(config, "folder-train-*.npy")[0].unlink()


def pickle_instead_of_images(config: DataConfig) -> None:
    np.save(pack_files(config, "folder-train-*.npy")[0], np.array([{}], dtype=object))


def other_type(config: DataConfig) -> None:
    file = pack_files(config, "folder-train-*.npy")[0]
    np.save(file, np.load(file).astype(np.float32))


def truncate_the_record(config: DataConfig) -> None:
    file = pack_files(config, "folder-train-*.json")[0]
    file.write_bytes(file.read_bytes()[:-5])


def exchange_labels(config: DataConfig) -> None:
    file = pack_files(config, "folder-train-*.json")[0]
    record = json.loads(file.read_text())
    record["labels"][0] = 1
    file.write_text(json.dumps(record))


def another_version(config: DataConfig) -> None:
    file = pack_files(config, "folder-train-*.json")[0]
    file.write_text(file.read_text().replace('"version":1', '"version":2'))


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_pixel,
        truncate_the_images,
        empty_the_images,
        lose_the_images,
        pickle_instead_of_images,
        other_type,
        truncate_the_record,
        exchange_labels,
        another_version,
    ],
)
def test_a_damaged_pack_is_made_again_with_a_message(
    damage: Callable[[DataConfig], None], config: DataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    fingerprint = load_data(config).fingerprint
    damage(config)
    assert decoded_by(config) == (fingerprint, 16)
    assert "damaged" in caplog.text
    assert "decoding again" in caplog.text
    assert decoded_by(config) == (fingerprint, 0)


def counted_hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    hashed: list[str] = []
    original = images_checksum

    def checksum(split: Split) -> str:
        hashed.append(original(split))
        return hashed[-1]

    monkeypatch.setattr(packed, "images_checksum", checksum)
    return hashed


def test_a_pack_is_hashed_until_it_has_settled_and_once_then(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = counted_hashes(monkeypatch)
    fingerprints = {load_data(config).fingerprint for _ in range(2)}
    assert len(hashed) == 4
    assert not pack_files(config, "*.verified")
    monkeypatch.setattr(packed, "_SECONDS_TO_SETTLE", -1.0)
    fingerprints |= {load_data(config).fingerprint for _ in range(3)}
    assert len(hashed) == 6
    assert len(fingerprints) == 1
    # A copy has other times, and a damaged list of verified states is none.
    file = pack_files(config, "folder-train-*.npy")[0]
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    pack_files(config, "folder-test-*.verified")[0].write_text("{")
    assert decoded_by(config)[1] == 0
    assert len(hashed) == 8


def test_a_cache_that_cannot_be_written_is_hashed_at_every_start(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_data(config)
    hashed = counted_hashes(monkeypatch)
    monkeypatch.setattr(packed, "_SECONDS_TO_SETTLE", -1.0)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(packed, "write_json", refuse)
    for _ in range(2):
        load_data(config)
    assert len(hashed) == 4


@pytest.mark.parametrize("damage", [flip_a_pixel, truncate_the_images, exchange_labels])
def test_damage_after_the_verification_is_found(
    damage: Callable[[DataConfig], None], config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_data(config)
    monkeypatch.setattr(packed, "_SECONDS_TO_SETTLE", -1.0)
    fingerprint = load_data(config).fingerprint
    assert pack_files(config, "folder-train-*.verified")
    # The clock of a file system ticks every few milliseconds.
    time.sleep(0.02)
    damage(config)
    assert decoded_by(config) == (fingerprint, 16)


def test_a_changed_folder_is_decoded_again(config: DataConfig) -> None:
    assert config.path is not None
    fingerprint = load_data(config).fingerprint
    file = config.path / "train" / "cat" / "0.png"
    facts = file.stat()
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    changed, count = decoded_by(config)
    assert count == 22
    assert changed != fingerprint
    shutil.copy(file, file.with_name("8.png"))
    assert decoded_by(config)[1] == 23
    assert decoded_by(config.model_copy(update={"image_size": 8}))[1] == 23


def test_a_pack_that_another_process_makes_is_waited_for(
    config: DataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    fingerprint, _ = decoded_by(config)
    waiting = "waiting for another process that decodes the same images"
    train = pack_files(config, "folder-train-*.npy")[0]
    lock = FileLock(train.with_suffix(".lock"))
    record = train.with_suffix(".json")
    content = record.read_bytes()
    record.unlink()
    with ThreadPoolExecutor(1) as pool, lock:
        other = pool.submit(decoded_by, config)
        while waiting not in caplog.text:
            assert not other.done()
            time.sleep(0.01)
        record.write_bytes(content)
        lock.release()
        assert other.result(timeout=60) == (fingerprint, 0)


@pytest.mark.slow
def test_two_processes_decode_once(
    config: DataConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = tmp_path / "load.py"
    script.write_text(
        "import sys, time; from pathlib import Path\n"
        "from automix.configuration.data import DataConfig\n"
        "from automix.data.load import load_data\n"
        "count = []\n"
        "def progress(done, total):\n"
        "    if not count:\n"
        "        print('decoding', flush=True); time.sleep(0.5)\n"
        "    count.append(done)\n"
        "data = load_data(DataConfig.from_yaml(Path(sys.argv[1])), progress=progress)\n"
        "print(len(count), data.fingerprint)\n"
    )
    settings = tmp_path / "data.yaml"
    settings.write_text(config.to_yaml())
    other = subprocess.Popen(
        [sys.executable, str(script), str(settings)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(packed.__file__).parents[2])},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "decoding\n"
    fingerprint, decoded_here = decoded_by(config)
    assert "waiting for another process that decodes the same images" in caplog.text
    decoded_there, its_fingerprint = other.communicate(timeout=60)[0].split()
    assert other.returncode == 0
    assert int(decoded_there) + decoded_here == 22
    assert its_fingerprint == fingerprint


def test_a_cache_that_cannot_be_a_folder(
    write_folder: WriteFolder, folder_config: Configure, tmp_path: Path
) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(DataError) as caught:
        load_data(folder_config(write_folder()))
    assert str(caught.value) == (
        f"{tmp_path / 'cache'}: expected a folder to keep decoded images in, got: file exists"
    )


def test_a_full_disk_leaves_nothing_behind(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(DataError, match="got: no space left on device"):
            load_data(config)
    assert {file.suffix for file in config.cache_folder.iterdir()} == {".lock"}
    assert decoded_by(config)[1] == 22


def test_more_than_disk_or_memory_is_refused_first(
    config: DataConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=100))
    with pytest.raises(DataError, match=r"expected decoded images of at most 100 B \(free space"):
        load_data(config)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(free=10**15))
    monkeypatch.setattr(os, "sysconf", lambda _: 10)
    with pytest.raises(
        DataError, match=r"\(main memory\), got [0-9.]+ (B|KiB); a smaller data.image_size"
    ):
        load_data(config)


def test_an_interrupted_decoding_leaves_nothing_behind(config: DataConfig) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_data(config, progress=interrupt)
    assert {file.suffix for file in config.cache_folder.iterdir()} == {".lock"}
    assert decoded_by(config)[1] == 22


def test_long_decoding_reports_to_the_log(
    config: DataConfig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(packed, "_SECONDS_BETWEEN_MESSAGES", 0.0)
    load_data(config)
    assert "train: decoding 16 images into" in caplog.text
    assert "train: decoded 7 of 16 images" in caplog.text
