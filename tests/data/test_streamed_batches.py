"""Batches decoded by worker processes: the same in any order and on any number of workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from automix.configuration.data import DataConfig
from automix.data.batches import BatchKey, BatchLayout, TrainingBatch, epoch_order
from automix.data.load import load_data, training_batches
from automix.data.splits import Dataset, StreamedSplit
from automix.data.streamed_batches import StreamedBatches
from automix.errors import DataError
from tests.data.conftest import CROP, STREAMING, Configure, WriteFolder


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


def test_without_a_crop_batches_are_those_of_the_decoded_folder(
    write_folder: WriteFolder, folder_config: Configure
) -> None:
    root = write_folder(train=10)
    augment = {
        "crop_padding": 1,
        "horizontal_flip": True,
        "auto_augment": "trivialaugment",
        "color_jitter": [0.4, 0.4, 0.4, 0.1],
        "random_erasing": 0.5,
    }
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


_SCRIPT = """
# Inside, because workers import this script too.
if __name__ == "__main__":
    import signal
    import sys
    from pathlib import Path
    from automix.configuration.data import DataConfig
    from automix.data.batches import BatchLayout
    from automix.data.load import load_data, training_batches

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


# Each takes 5 s to start; SIGINT ends as an error does, by an exception.
@pytest.mark.parametrize(
    "end",
    [
        pytest.param("error", marks=pytest.mark.slow),
        pytest.param("SIGINT", marks=pytest.mark.slow),
        "SIGKILL",
    ],
)
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
