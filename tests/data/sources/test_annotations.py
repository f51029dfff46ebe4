import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automix.configuration.data import DataConfig, DataSource
from automix.data.load import load_data
from automix.data.sources.annotations import NamedImages, name_test_images, read_boxes, read_groups
from automix.errors import DataError

NUMBERED = NamedImages(names=("0", "1", "2"), files={}, height=8, width=10)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    table = write(
        tmp_path / "boxes.csv",
        "image,left,top,right,bottom\n2,0,0,4,4\n\n0, 1, 1.5, 10, 8\n2,5,5,6,6\n",
    )
    tree = write(
        tmp_path / "boxes.json",
        json.dumps({"2": [[0, 0, 4, 4], [5, 5, 6, 6]], "0": [[1, 1.5, 10, 8]]}),
    )
    for path in (table, tree):
        result = read_boxes(path, NUMBERED)
        assert result.positions == (0, 2)
        assert [boxes.tolist() for boxes in result.boxes] == [
            [[1, 1.5, 10, 8]],
            [[0, 0, 4, 4], [5, 5, 6, 6]],
        ]
        assert result.num_outside == 0


def test_groups_are_numbered_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "groups.csv", "image,group\n1,snow\n0,grass\n2,snow\n")
    result = read_groups(path, NUMBERED)
    assert (result.names, result.numbers) == (("grass", "snow"), (0, 1, 1))
    tree = write(tmp_path / "groups.json", json.dumps({"1": "snow", "0": "grass", "2": "snow"}))
    assert read_groups(tree, NUMBERED) == result


def folder_with(tmp_path: Path, size: tuple[int, int]) -> DataConfig:
    """Two classes; every image is black with one white rectangle in (0.25, 0.5) of its sides."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = 255
    for part in ("train", "val", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return DataConfig(
        source=DataSource.FOLDER,
        path=tmp_path / "photos",
        image_size=(32, 32),
        reward_size=1,
        selection_size=1,
        cache=tmp_path / "cache",
    )


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (64, 112), (16, 20)])
def test_boxes_follow_the_images_through_scaling_and_cutting(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    config = folder_with(tmp_path, size)
    data = load_data(config)
    names = name_test_images(config, len(data.test), height=32, width=32)
    assert names.names == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png")
    width, height = size
    box = f"{width // 4},{height // 4},{width // 2},{height // 2}"
    path = write(tmp_path / "boxes.csv", f"image,left,top,right,bottom\ntest/dog/0.png,{box}\n")
    result = read_boxes(path, names)
    assert result.positions == (2,)
    left, top, right, bottom = result.boxes[0][0]
    bright = data.test.images[2, 0].numpy() > 127
    rows, columns = np.nonzero(bright)
    # Where the white rectangle really is, to a pixel.
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose((left, top, right, bottom), seen, atol=1.0)


def test_what_is_cut_off_has_no_box(tmp_path: Path) -> None:
    config = folder_with(tmp_path, (128, 32))
    names = name_test_images(config, 4, height=32, width=32)
    rows = "test/cat/0.png,0,0,20,20\ntest/cat/1.png,0,0,20,20\ntest/cat/1.png,40,0,64,32\n"
    result = read_boxes(
        write(tmp_path / "boxes.csv", "image,left,top,right,bottom\n" + rows), names
    )
    assert (result.positions, result.num_outside) == ((1,), 1)
    assert result.boxes[0].tolist() == [[0, 0, 16, 32]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.csv", "", r"b\.csv: expected the header image,left,top,right,bottom, got ''"),
        ("b.csv", "image,x\n", r"b\.csv: expected the header"),
        ("b.csv", "image,left,top,right,bottom\n0,1,2\n", r"b\.csv:2: expected 5 values, got 3"),
        (
            "b.csv",
            "image,left,top,right,bottom\n0,1,2,3,x\n",
            r"b\.csv:2: expected four numbers, got",
        ),
        (
            "b.csv",
            "image,left,top,right,bottom\n0,3,2,3,5\n",
            r"b\.csv:2: expected 0 <= left < right and 0 <= top < bottom, got 3, 2, 3, 5",
        ),
        ("b.csv", "image,left,top,right,bottom\n0,-1,2,3,5\n", "expected 0 <= left < right"),
        ("b.csv", "image,left,top,right,bottom\n0,nan,2,3,5\n", "expected 0 <= left < right"),
        (
            "b.csv",
            "image,left,top,right,bottom\n0,0,0,11,8\n",
            r"b\.csv: 0: expected boxes inside 10 x 8 pixels",
        ),
        (
            "b.csv",
            "image,left,top,right,bottom\n7,0,0,1,1\n",
            r"b\.csv:2: expected the number of a test image, 0 to 2, such as '0', got '7'",
        ),
        (
            "b.csv",
            "image,left,top,right,bottom\n",
            r"b\.csv: expected boxes of test images, got none",
        ),
        ("b.json", "{", r"b\.json: expected JSON, got: Expecting property"),
        ("b.json", "[" * 100_000, r"b\.json: expected JSON"),
        ("b.json", "[]", r"b\.json: expected a JSON object, got list"),
        ("b.json", '{"0": 3}', r"b\.json: 0: expected a list of boxes, got 3"),
        ("b.json", '{"0": [[1, 2]]}', r"b\.json: 0: expected \[left, top, right, bottom\]"),
        ("b.json", '{"0": [[true, 2, 3, 4]]}', r"b\.json: 0: expected four numbers"),
    ],
)
def test_wrong_boxes_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_boxes(write(tmp_path / name, text), NUMBERED)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,group\n0,a\n0,b\n", "g.csv:3: expected one group for each image, got two for '0'"),
        ("image,group\n0,a\n", "g.csv: expected a group for each test image, got none for '1'"),
    ],
)
def test_wrong_groups_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_groups(write(tmp_path / "g.csv", text), NUMBERED)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: expected a readable file, got: no such"):
        read_boxes(tmp_path / "nowhere.csv", NUMBERED)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"b\.csv: expected CSV in UTF-8, got: "):
        read_boxes(tmp_path / "b.csv", NUMBERED)


def test_a_file_of_too_many_rows_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automix.data.sources.annotations.MAX_VALUES", 10)
    (tmp_path / "b.csv").write_text("image,left,top,right,bottom\n" + "0,1,1,2,2\n" * 3)
    with pytest.raises(DataError, match=r"b\.csv: expected at most 10 values, got more"):
        read_boxes(tmp_path / "b.csv", NUMBERED)
