"""Streamed images: the same splits, the same pixels, whoever reads them and in what order."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix.configuration.data import DEFAULT_CROP_RATIO, AugmentConfig, DataConfig
from automix.data.augment import draw_crop_boxes
from automix.data.batches import BatchKey, BatchLayout, TrainingBatch, epoch_order
from automix.data.load import load_data, training_batches
from automix.data.sources.decode import ImageFormat, PixelBox, read_crop
from automix.data.splits import Dataset, ImageFiles, StreamedSplit
from automix.data.streamed_batches import StreamedBatches
from automix.errors import DataError
from tests.data.conftest import WriteFolder, write_image
from tests.resident import class_counts, resident

Configure = Callable[..., DataConfig]
CROP = {"resized_crop_scale": [0.3, 1.0], "horizontal_flip": True}
STREAMING = {"loading": "streaming", "image_size": [4, 6], "loader_workers": 0}


def batches_of(
    data: Dataset, config: DataConfig, *, batch_size: int = 4, **division: int
) -> StreamedBatches:
    layout = BatchLayout.fitting(
        len(data.train), batch_size, **({"accumulation": 1, "rank": 0, "world_size": 1} | division)
    )
    batches, _ = training_batches(data.seen, config, layout, num_steps=40, device="cpu")
    assert isinstance(batches, StreamedBatches)
    return batches


def equal(first: TrainingBatch, second: TrainingBatch) -> bool:
    return all(a.equal(b) for a, b in zip(first, second, strict=True))


def streamed(data: Dataset) -> StreamedSplit:
    assert isinstance(data.train, StreamedSplit)
    return data.train


@pytest.mark.parametrize("val", [0, 6])
def test_the_splits_and_their_pixels_are_those_of_the_decoded_folder(
    write_folder: WriteFolder, folder_config: Configure, val: int
) -> None:
    root = write_folder(train=10, val=val)
    values = {"reward_size": 2, "selection_size": 3, "labels_per_class": 4}
    decoded = load_data(folder_config(root, **values))
    data = load_data(folder_config(root, **values, **STREAMING))
    train = streamed(data)
    assert data.class_names == decoded.class_names
    assert class_counts(train) == class_counts(decoded.train) == [4, 4]
    assert train.image_shape == data.seen.image_shape == decoded.seen.image_shape
    assert train.take(torch.arange(8))[0].equal(resident(decoded.train).images)
    assert train.labels.equal(decoded.train.labels)
    assert train.to("meta") is train
    for name in ("reward", "selection"):
        assert getattr(data.seen, name).images.equal(getattr(decoded.seen, name).images)
        assert getattr(data.seen, name).labels.equal(getattr(decoded.seen, name).labels)
    assert data.test.images.equal(decoded.test.images)
    assert data.statistics.mean == pytest.approx(decoded.statistics.mean)
    assert data.fingerprint != decoded.fingerprint
    assert data.fingerprint == load_data(folder_config(root, **values, **STREAMING)).fingerprint


def test_without_a_crop_batches_are_those_of_the_decoded_folder(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(train=10)
    augment = {"crop_padding": 1, "horizontal_flip": True}
    config = folder_config(root, augment=augment, **STREAMING)
    data = load_data(config)
    decoded_config = folder_config(root, augment=augment)
    decoded = load_data(decoded_config)
    assert len(data.train) == len(decoded.train)
    layout = BatchLayout(num_images=len(data.train), batch_size=4)
    first, _ = training_batches(data.seen, config, layout, num_steps=9, device="cpu")
    second, _ = training_batches(decoded.seen, decoded_config, layout, num_steps=9, device="cpu")
    for step in range(4):
        key = layout.key(3, step)
        one, other = first.batch(key), second.batch(key)
        assert one.labels.equal(other.labels)
        assert one.indices.equal(other.indices)
        torch.testing.assert_close(one.images, other.images)


@pytest.fixture(scope="module")
def large_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of many sizes and kinds, larger than what is fed."""
    root = tmp_path_factory.mktemp("large")
    seed = 0
    for part, count in (("train", 9), ("test", 2)):
        for class_name in ("cat", "dog"):
            for number in range(count):
                seed += 1
                suffix, mode = ((".jpg", "RGB"), (".png", "RGBA"), (".jpg", "L"))[number % 3]
                file = root / part / class_name / f"{number}{suffix}"
                write_image(file, seed=seed, mode=mode, size=(20 + seed, 60 - seed))
    return root


@pytest.fixture
def crops(large_images: Path, folder_config: Configure) -> Callable[..., DataConfig]:
    def configure(**values: object) -> DataConfig:
        mapping = STREAMING | {"image_size": [12, 10], "augment": CROP, "reward_size": 1}
        return folder_config(large_images, **(mapping | {"selection_size": 0} | values))

    return configure


def test_batches_follow_the_epochs_and_differ_between_them(crops: Configure) -> None:
    data = load_data(crops())
    batches = batches_of(data, crops())
    layout = batches.layout
    assert layout.steps_per_epoch == 4
    seen = [batches.batch(layout.key(5, step)) for step in range(8)]
    for epoch in range(2):
        indices = torch.cat([batch.indices for batch in seen[4 * epoch : 4 * epoch + 4]])
        assert indices.equal(epoch_order(16, seed=5, epoch=epoch))
    for batch in seen:
        assert batch.images.shape == (4, 3, 12, 10)
        assert batch.labels.equal(streamed(data).labels[batch.indices])
    both_epochs: dict[int, list[torch.Tensor]] = {}
    for batch in seen:
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            both_epochs.setdefault(index, []).append(image)
    assert all(not first.equal(second) for first, second in both_epochs.values())


def test_neither_order_nor_division_changes_an_image(crops: Configure) -> None:
    config = crops(augment={"resized_crop_scale": [0.3, 1.0]})
    data = load_data(config)
    whole = batches_of(data, config)
    forward = [whole.batch(whole.layout.key(1, step)) for step in range(6)]
    for step in (4, 1, 5, 5, 0):
        assert equal(whole.batch(whole.layout.key(1, step)), forward[step])
    assert not whole.batch(whole.layout.key(2, 0)).images.equal(forward[0].images)
    ranks = [batches_of(data, config, world_size=2, rank=rank, accumulation=2) for rank in range(2)]
    for step in range(6):
        parts = [
            ranks[number % 2].batch(BatchKey(seed=1, step=step, micro_batch=number))
            for number in range(4)
        ]
        assert torch.cat([part.images for part in parts]).equal(forward[step].images)
        assert torch.cat([part.indices for part in parts]).equal(forward[step].indices)


def test_a_crop_is_the_box_that_was_drawn_scaled_as_pillow_does(crops: Configure) -> None:
    split = streamed(load_data(crops()))
    augment = AugmentConfig(resized_crop_scale=(0.3, 1.0))
    for index in range(len(split)):
        image_read = split.read_training(index, augment, torch.Generator().manual_seed(index))
        with Image.open(split.files[index]) as image:
            color = image.convert("RGB")
        drawn = draw_crop_boxes(
            torch.tensor([color.height]),
            torch.tensor([color.width]),
            scale=(0.3, 1.0),
            ratio=DEFAULT_CROP_RATIO,
            generator=torch.Generator().manual_seed(index),
        )
        top, left, height, width = map(int, (drawn.top, drawn.left, drawn.height, drawn.width))
        box = (left, top, left + width, top + height)
        expected = np.asarray(color.crop(box).resize((10, 12), Image.Resampling.BILINEAR))
        difference = image_read.float() - torch.tensor(expected).permute(2, 0, 1).float()
        assert not difference.any(), split.files[index]


@pytest.fixture
def workers(crops: Configure) -> Iterator[StreamedBatches]:
    config = crops(loader_workers=2)
    batches = batches_of(load_data(config), config)
    yield batches
    batches.close()


def test_worker_processes_give_the_same_batches_from_any_step(
    crops: Configure, workers: StreamedBatches
) -> None:
    config = crops()
    alone = batches_of(load_data(config), config)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for seed, step in ((1, 0), (1, 1), (1, 2), (1, 17), (1, 18), (1, 3), (2, 3), (2, 3), (2, 39)):
        key = workers.layout.key(seed, step)
        assert equal(workers.batch(key), alone.batch(key)), (seed, step)
    assert torch.get_rng_state().equal(state)
    pids = [worker.pid for worker in workers._arriving._workers]
    assert all(map(_is_running, pids))
    # What a scheduler does to every process of a job: only the training decides when to stop.
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    key = workers.layout.key(2, 5)
    assert equal(workers.batch(key), alone.batch(key))
    # Killed for want of memory: they are started again, and the batch is the same.
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    key = workers.layout.key(2, 20)
    assert equal(workers.batch(key), alone.batch(key))
    workers.close()
    _wait_until_gone(pids)


def test_a_broken_file_is_one_line_that_names_it(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(train=8, suffix=".jpg")
    config = folder_config(root, augment=CROP, reward_size=0, selection_size=0, **STREAMING)
    data = load_data(config)
    broken = root / "train" / "dog" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:-200])
    expected = f"{broken}: expected a readable image, got: "
    for num_workers in (0, 1):
        config = config.model_copy(update={"loader_workers": num_workers})
        batches = batches_of(data, config, batch_size=16)
        with pytest.raises(DataError) as caught:
            batches.batch(batches.layout.key(0, 0))
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
        batches.close()
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dog/5\.jpg: expected an image, got something else"):
        batches_of(data, config, batch_size=16).batch(BatchKey(seed=0, step=0))


def test_an_enormous_image_is_refused(crops: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = crops()
    batches = batches_of(load_data(config), config, batch_size=16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="expected at most 100 pixels, got more"):
        batches.batch(BatchKey(seed=0, step=0))


def smooth_image(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_crops_are_taken_of_the_upright_image(tmp_path: Path) -> None:
    image = smooth_image(64, 32)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.array(image.rotate(-90, expand=True)).transpose(2, 0, 1)
    target = ImageFormat(channels=3, height=20, width=10, resize=True)

    def box_in(height: int, width: int) -> PixelBox:
        assert (height, width) == (64, 32)
        return PixelBox(5, 7, 20, 10)

    crop = read_crop(tmp_path / "turned.png", target, box_in)
    np.testing.assert_array_equal(crop, upright[:, 5:25, 7:17])
    deep = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2700
    Image.fromarray(deep).save(tmp_path / "deep.png")
    whole = ImageFormat(channels=3, height=4, width=6, resize=True)
    crop = read_crop(tmp_path / "deep.png", whole, lambda h, w: PixelBox(0, 0, h, w))
    np.testing.assert_array_equal(crop, np.stack([(deep >> 8).astype(np.uint8)] * 3))


@pytest.mark.parametrize("orientation", [1, 8])
def test_a_large_photograph_is_decoded_at_a_smaller_size(tmp_path: Path, orientation: int) -> None:
    """Decoding at 1/4 gives what decoding in full gives, within what JPEG loses."""
    image = smooth_image(1003, 701)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "jpg"):
        image.save(tmp_path / f"photograph.{suffix}", exif=exif, quality=95)
    target = ImageFormat(channels=3, height=40, width=40, resize=True)
    box = PixelBox(100, 50, 500, 401)
    full, quick = (
        read_crop(tmp_path / f"photograph.{suffix}", target, lambda *_: box).astype(int)
        for suffix in ("png", "jpg")
    )
    assert np.abs(full - quick).mean() < 1.5
    shifted = read_crop(tmp_path / "photograph.png", target, lambda *_: PixelBox(112, 50, 500, 401))
    assert np.abs(full - shifted.astype(int)).mean() > 3.0


def test_evaluation_keeps_the_middle_where_it_is_told(
    large_images: Path, folder_config: Configure
) -> None:
    values = STREAMING | {"image_size": 14, "reward_size": 0, "selection_size": 0}
    whole = load_data(folder_config(large_images, **values))
    middle = load_data(folder_config(large_images, **values, evaluation_crop=0.875))
    scaled = load_data(folder_config(large_images, **(values | {"image_size": 16})))
    # 14 of 16 pixels, as resizing to 16 and cutting 14 at the center gives.
    expected = scaled.test.images[:, :, 1:15, 1:15].float()
    distance = (middle.test.images.float() - expected).abs().mean()
    assert distance < 2.5
    assert distance < 0.2 * (whole.test.images.float() - expected).abs().mean()


def test_paths_of_files_come_back(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/\udce9/x y.png", "train/\u00e4\u6f22/3.webp", "q"]
    files = ImageFiles(tmp_path, names)
    assert [files[index] for index in range(len(files))] == [tmp_path / name for name in names]
    assert len(ImageFiles(tmp_path, [])) == 0


_SCRIPT = """
import signal
import sys
from pathlib import Path
from automix.data.augment import draw_crop_boxes
from automix.data.load import training_batches
from automix.configuration.data import DataConfig
from automix.data.sources.decode import ImageFormat, PixelBox, read_crop
from automix.data.load import load_data
from automix.data.batches import BatchLayout

if __name__ == "__main__":
    # Shells start what runs in the background with SIGINT ignored, tests too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config = DataConfig.from_yaml(Path(sys.argv[1]))
    data = load_data(config)
    layout = BatchLayout(num_images=len(data.train), batch_size=4)
    batches, _ = training_batches(data.seen, config, layout, num_steps=10**6, device="cpu")
    batches.batch(layout.key(0, 0))
    pids = [worker.pid for worker in batches._arriving._workers]
    print(*pids, flush=True)
    if sys.argv[2] == "error":
        raise RuntimeError("an end that nobody planned")
    step = 0
    while True:
        step += 1
        batches.batch(layout.key(0, step))
"""


@pytest.mark.parametrize("end", ["error", "SIGINT", "SIGKILL"])
def test_no_worker_outlives_the_training(end: str, crops: Configure, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_SCRIPT)
    (tmp_path / "data.yaml").write_text(crops(loader_workers=2).to_yaml())
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "data.yaml"), end],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        if end == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)
        elif end == "SIGKILL":
            process.kill()
        process.wait(timeout=60)
    _wait_until_gone(pids)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended; nobody waited for it yet.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def _wait_until_gone(pids: list[int]) -> None:
    end = time.monotonic() + 60
    while any(map(_is_running, pids)):
        assert time.monotonic() < end, "workers are still there"
        time.sleep(0.05)
