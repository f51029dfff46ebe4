"""Weights and checkpoints from anybody: bombs, foreign calls and other shapes are one line."""

import hashlib
import io
import json
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from automix.configuration.task import ModelConfig
from automix.errors import CheckpointError
from automix.files import read_checkpoint, write_checkpoint
from automix.models.build import build_model, shapes_of_model
from automix.tensor_files import Payload, read_any_weights, read_weights

META = {"a": torch.empty(3, device="meta"), "b": torch.empty(2, 2, device="meta")}


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def repacked(content: bytes, **options: Any) -> bytes:
    """Return an archive of `torch.save` written again by `zipfile`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(stream, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), **options)
    return stream.getvalue()


class Calls:
    """Pickled as a call, which the unpickler of torch makes: it allows both."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def archive(pickled: bytes, *, times: int = 1) -> bytes:
    """Return an archive with a pickle, and a storage that its directory names several times."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr("archive/data.pkl", pickled)
        target.writestr("archive/data/0", b"\0" * 10_000)
        target.filelist += target.filelist[-1:] * (times - 1)
    return stream.getvalue()


BOMBS = {
    "compressed": repacked(saved({"a": torch.zeros(10**7)}), compress_type=zipfile.ZIP_DEFLATED),
    "bytearray": saved({"a": Calls(bytearray, 10**12)}),
    "storage": saved({"a": Calls(torch.UntypedStorage, 10**12)}),
    "operations": archive(b"\x80\x02]" + b"]" * 20_000 + b"."),
    "struct.error": repacked(saved({"a": 1}))[:-22] + b"PK\x05\x06" + b"\xff" * 18,
    "huge directory": saved({})[:-58] + struct.pack("<Q", 2**31) + saved({})[-50:],
    "shared bytes": archive(b"\x80\x02}q\x00.", times=1000),
    "text": b"text" * 100,
    "empty": b"",
    "pickle": b"\x80\x02}q\x00.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_line_in_weights_and_in_checkpoints(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Counting to the limit takes a second.
    monkeypatch.setattr("automix.tensor_files._MAX_OPERATIONS", 10_000)
    content = BOMBS[name]
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"w\.pt: expected a safetensors file or") as caught:
        read_any_weights(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    # With the right sum: it says that the file is whole, not who wrote it.
    digest = hashlib.sha256(content).digest()
    (tmp_path / "1.ckpt").write_bytes(b"AUTOMIX1" + digest + content)
    with pytest.raises(CheckpointError, match=r"1\.ckpt: expected tensors and") as caught:
        read_checkpoint(tmp_path / "1.ckpt")
    assert "\n" not in str(caught.value)


_PEAK = """
import resource, sys, pathlib, torch
from automix.errors import CheckpointError
from automix.tensor_files import read_any_weights
torch.load  # all of torch is there
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_any_weights(pathlib.Path(sys.argv[1]))
except CheckpointError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_the_bombs_take_no_memory(tmp_path: Path) -> None:
    for name in ("compressed", "bytearray", "storage"):
        (tmp_path / name).write_bytes(BOMBS[name])
        command = [sys.executable, "-c", _PEAK, str(tmp_path / name)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert int(output) < 300_000, f"{name}: kB"


def test_what_states_hold_comes_back(tmp_path: Path) -> None:
    state = {
        "tensors": [torch.arange(3), torch.zeros(2, 2).t(), torch.ones(1, dtype=torch.bfloat16)],
        "values": {"a": (1, 2.5, None, True), "text": "x", 3: [10**12]},
        "types": [torch.float16, torch.Size([1, 2])],
        "parameter": torch.nn.Parameter(torch.zeros(2)),
        "generator": torch.get_rng_state(),
    }
    write_checkpoint(tmp_path / "1.ckpt", state)
    loaded = read_checkpoint(tmp_path / "1.ckpt")
    assert loaded["values"] == state["values"]
    assert loaded["types"] == state["types"]
    torch.testing.assert_close(loaded["tensors"], state["tensors"])


def test_a_payload_is_a_file_of_its_own() -> None:
    part = Payload(io.BytesIO(b"header" + b"0123456789"), 6)  # type: ignore[arg-type]
    assert part.read(3) == b"012"
    assert (part.tell(), part.seek(-2, 2), part.read()) == (3, 8, b"89")
    assert (part.seek(4), part.seek(1, 1), part.read(1)) == (4, 5, b"5")


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    path.write_bytes(safetensors.torch.save(tensors))
    return path


def test_weights_are_compared_before_they_are_read(tmp_path: Path) -> None:
    file = write(tmp_path / "w", {"a": torch.arange(3.0), "b": torch.ones(2, 2)})
    assert read_weights(file, META)["a"].tolist() == [0, 1, 2]
    for tensors, got in (
        ({"a": torch.zeros(3)}, "none for 'b'"),
        ({"a": torch.zeros(3), "b": torch.zeros(2, 2), "c": torch.zeros(1)}, "the unknown 'c'"),
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, r"b of shape \(4,\), not \(2, 2\)"),
    ):
        with pytest.raises(CheckpointError, match=f"w: expected weights that fit, got {got}"):
            read_weights(write(file, tensors), META)
    half = {"a": torch.zeros(3).half(), "b": torch.zeros(2, 2)}
    with pytest.raises(CheckpointError, match=r"w: expected a of torch\.float32, got .*16"):
        read_weights(write(file, half), META)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8 + b"{}",
        (10**7).to_bytes(8, "little") + b" " * 100,
        (10**5).to_bytes(8, "little") + b"[" * 10**5,
        b"",
        json.dumps({"a": 1}).encode(),
    ],
)
def test_damaged_headers_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    for read in (lambda path: read_weights(path, META), read_any_weights):
        with pytest.raises(CheckpointError, match=r"w\.safetensors: expected .*, got: ") as caught:
            read(tmp_path / "w.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["small_cnn", "torchvision/regnet_x_400mf"])
def test_shapes_are_those_of_the_network(name: str) -> None:
    config = ModelConfig(name=name)
    shapes = shapes_of_model(config, num_classes=7, channels=1)
    network = build_model(config, generator=torch.Generator(), num_classes=7, channels=1)
    state = network.state_dict()
    assert list(shapes) == list(state)
    for key, tensor in state.items():
        assert (shapes[key].shape, shapes[key].dtype) == (tensor.shape, tensor.dtype)


def test_shapes_of_a_network_larger_than_any_memory_take_none() -> None:
    shapes = shapes_of_model(ModelConfig(name="resnext29_999x999"), num_classes=10, channels=3)
    assert sum(tensor.numel() for tensor in shapes.values()) > 10**11
