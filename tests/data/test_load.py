"""The digits from end to end; images decoded or streamed, on the device or the host."""

import logging
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits

import automix.data.load
import automix.data.sources.folder
import automix.data.splits
from automix.configuration.data import AugmentConfig, DataConfig, Placement
from automix.data.load import holding_device, load_data
from automix.data.splits import Dataset, Split, StreamedSplit
from automix.errors import DataError
from tests.data.conftest import Configure, WriteFolder
from tests.resident import class_counts, resident


def flat(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


def digits_splits(data: Dataset) -> list[Split]:
    return [resident(data.train), data.seen.reward, data.seen.selection, data.test]


def test_digits_are_the_scans_scaled_to_bytes() -> None:
    data = load_data(DataConfig())
    assert sum(len(split) for split in digits_splits(data)) == 1797
    original = {image.tobytes() for image in (load_digits().images * 255 / 16).round().astype("u1")}
    assert set().union(*map(flat, digits_splits(data))) == original
    assert data.seen.image_shape == (1, 8, 8)
    assert data.class_names == tuple("0123456789")
    for split in digits_splits(data):
        counts = class_counts(split)
        assert max(counts) - min(counts) <= 5


def test_scarce_labels_change_the_training_split_only() -> None:
    full, scarce = load_data(DataConfig()), load_data(DataConfig(labels_per_class=20))
    assert class_counts(scarce.train) == [20] * 10
    for one, other in zip(digits_splits(full)[1:], digits_splits(scarce)[1:], strict=True):
        assert one.images.equal(other.images)
    assert full.fingerprint != scarce.fingerprint


def test_the_fingerprint_follows_data_and_splits() -> None:
    config = DataConfig()
    assert load_data(config).fingerprint == load_data(config).fingerprint
    others = [DataConfig(split_seed=1), DataConfig(reward_size=30), DataConfig(test_size=0.1)]
    prints = {load_data(other).fingerprint for other in [config, *others]}
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            DataConfig(labels_per_class=500),
            "digits: expected at least 605 images of class '0' "
            "(test 35, reward 35, selection 35, train 500), got 178",
        ),
        (
            DataConfig(augment=AugmentConfig(crop_padding=8)),
            "data.augment.crop_padding: expected less than the image side of 8 pixels, got 8",
        ),
    ],
)
def test_impossible_wishes_are_one_line(config: DataConfig, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load_data(config)
    assert str(caught.value) == message


def test_digits_can_be_enlarged() -> None:
    small, large = load_data(DataConfig()), load_data(DataConfig(image_size=16))
    assert large.seen.image_shape == (1, 16, 16)
    shrunk = torch.nn.functional.avg_pool2d(large.test.images.float(), 2)
    assert (shrunk - small.test.images).abs().mean() < 20


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


def place(num_bytes: int, placement: Placement, device: str = "meta") -> str:
    return holding_device(num_bytes, device=device, placement=placement).type


@pytest.fixture
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda _: (1000, 2000))


@pytest.mark.usefixtures("free_memory")
def test_auto_takes_half_of_the_free_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert place(500, Placement.AUTO) == "meta"
    assert "are held on meta: at most half of" in caplog.text
    assert place(501, Placement.AUTO) == "cpu"
    assert "are held on cpu: more than half of" in caplog.text


@pytest.mark.usefixtures("free_memory")
def test_the_placement_can_be_forced() -> None:
    assert place(10**6, Placement.DEVICE) == "meta"
    assert place(1, Placement.HOST) == "cpu"


@pytest.mark.parametrize("placement", Placement)
def test_a_model_in_main_memory_has_its_images_there(placement: Placement) -> None:
    assert place(10**15, placement, device="cpu") == "cpu"


def test_an_accelerator_that_tells_nothing_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: torch.device) -> tuple[int, int]:
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", silent)
    assert place(1, Placement.AUTO) == "cpu"
