"""Images with several labels: their file, splits, and what is refused in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from automix.cli.main import main
from automix.configuration.data import DataConfig, DataSource
from automix.data.load import load_data
from automix.data.sources.label_file import parts_of_labels, read_label_file
from automix.errors import DataError

CLASSES = ("cat", "dog", "bird")


def write_images(root: Path, count: int = 40, side: int = 8) -> Path:
    """Write noise whose channels are bright for the classes, and return the CSV of its labels."""
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines = [",".join(("image", *CLASSES))]
    for number in range(count):
        row = generator.random(3) < 0.5
        pixels = generator.integers(0, 100, (side, side, 3)) + 120 * row
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        lines.append(",".join((f"{number}.png", *map(str, row.astype(int)))))
    file = root.parent / "labels.csv"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def config_of(file: Path, **fields: object) -> DataConfig:
    values = {"source": "folder", "path": file.parent / "images", "labels": file} | fields
    return DataConfig.model_validate(values | {"cache": file.parent / "cache"})


def test_every_image_has_its_row_in_one_split(labels: Path) -> None:
    data = load_data(config_of(labels))
    seen = data.seen
    assert seen.class_names == CLASSES
    assert seen.has_label_rows
    splits = [seen.train, seen.reward, seen.selection, data.test]
    assert [len(split) for split in splits] == [16, 8, 8, 8]
    table = read_label_file(labels)
    pixels = {
        np.asarray(Image.open(labels.parent / "images" / name)).tobytes(): row
        for name, row in zip(table.files, table.rows, strict=True)
    }
    for split in splits:
        for image, row in zip(split.take(torch.arange(len(split)))[0], split.labels, strict=True):
            assert pixels.pop(image.permute(1, 2, 0).numpy().tobytes()).equal(row)
    assert not pixels
    assert load_data(config_of(labels)).fingerprint == data.fingerprint
    other = load_data(config_of(labels, split_seed=1))
    assert other.fingerprint != data.fingerprint


def test_names_of_labels_are_one_column(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    lines = ("image,labels", "a.png,cat dog", '"b, c.png",', "d.jpg,dog;bird")
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    table = read_label_file(file)
    assert table.files == ("a.png", "b, c.png", "d.jpg")
    assert table.class_names == ("bird", "cat", "dog")
    assert table.rows.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 1]]


def test_splits_have_their_part_of_each_class() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.rand(1000, 4, generator=generator) < torch.tensor([0.5, 0.2, 0.1, 0.05])).float()
    config = DataConfig(reward_size=0.1, selection_size=0.1, test_size=0.2)
    parts = parts_of_labels(rows, config)
    assert torch.cat(list(parts.values())).sort().values.equal(torch.arange(1000))
    for name, fraction in (("test", 0.2), ("reward", 0.1), ("train", 0.6)):
        assert len(parts[name]) == pytest.approx(1000 * fraction, abs=1)
        expected = fraction * rows.sum(0)
        assert ((rows[parts[name]].sum(0) - expected).abs() <= 5 + 0.25 * expected).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a line of column names and images, got none"),
        ("image,a,b\n", "expected a line of column names and images, got none"),
        ("file,a,b\n1.png,0,1\n", "line 1: expected 'image' as the name of the first column"),
        ("image,a\n1.png,1\n", "line 1: expected a column 'labels', or one for each of at least 2"),
        ("image,a,a\n1.png,0,1\n", "line 1: expected every column under a name of its own"),
        ("image,a,b\n1.png,0\n", "line 2: expected 3 cells, got 2"),
        ("image,a,b\n1.png,0,yes\n", "line 2: expected 0 or 1 for 'b', got 'yes'"),
        ("image,a,b\n../1.png,0,1\n", "line 2: expected a path below the folder of the images"),
        ("image,a,b\n1.txt,0,1\n", "line 2: expected an image ("),
        ("image,a,b\n1.png,0,1\n1.png,1,1\n", "line 3: expected each image once, got '1.png'"),
        ("image,a,b\n1.png,0,1\n2.png,0,1\n", "expected an image of every class, got none of 'a'"),
        ("image,labels\n1.png,a\n2.png,a\n", "expected at least 2 classes, got 1"),
        ('image,a,b\n"1.png,0,1\n', "expected CSV, got: unexpected end of data"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_label_file(file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_image_is_named_with_its_neighbor(labels: Path) -> None:
    (labels.parent / "images" / "7.png").rename(labels.parent / "images" / "7_.png")
    with pytest.raises(DataError, match=r"expected '7\.png' in .*, got no such file \(did you"):
        load_data(config_of(labels))


def test_a_class_that_a_split_lacks_is_named(labels: Path) -> None:
    lines = labels.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    rare = [",".join((*row[:-1], "1" if number == 1 else "0")) for number, row in enumerate(cells)]
    labels.write_text("\n".join([lines[0], *rare[1:]]))
    with pytest.raises(DataError, match="expected an image of every class in each split, got none"):
        load_data(config_of(labels))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": DataSource.DIGITS, "path": None}, "expected no labels for the source 'digits'"),
        ({"loading": "streaming", "image_size": 8}, "expected loading resident with labels"),
        ({"sampling": "balanced"}, "expected no sampling balanced and no labels_per_class"),
        ({"labels_per_class": 3}, "expected no sampling balanced and no labels_per_class"),
        ({"reward_size": 3}, "expected sizes of splits below 1 with labels, got 3"),
        ({"reward_size": 0.5, "selection_size": 0.3}, "sum to less than 1, got 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(tmp_path / "labels.csv", **fields)


def test_a_command_says_it_in_one_line(
    labels: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(labels.parent)
    (labels.parent / "images" / "7.png").unlink()
    for file, message in (
        ("missing.csv", "missing.csv: expected a readable file"),
        ("labels.csv", "labels.csv: expected '7.png' in images, got no such file"),
    ):
        flags = ["--task.data.labels", file, "--task.data.cache", "cache"]
        assert main(["compare", "images", *flags, "--output", "run"]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error.splitlines()[-1]
        assert "Traceback" not in error
    assert not (labels.parent / "run").exists()
