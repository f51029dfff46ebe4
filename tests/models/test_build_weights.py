import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from automix.configuration.task import ModelConfig
from automix.errors import CheckpointError
from automix.models.build import build_model, reinitialize_


def build(
    weights: Path | str | None = None,
    *,
    name: str = "small_cnn",
    num_classes: int = 5,
    channels: int = 3,
    seed: int = 0,
) -> nn.Module:
    return build_model(
        ModelConfig.model_validate({"name": name, "weights": weights}),
        num_classes=num_classes,
        channels=channels,
        generator=torch.Generator().manual_seed(seed),
    )


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    """Return the names of the tensors that are equal in both."""
    return {name for name in first if torch.equal(first[name], second[name])}


def write(model: nn.Module, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"model": model.state_dict(), "epoch": 3}, path)
    return path


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_file_gives_all_values(tmp_path: Path, name: str) -> None:
    saved = build(seed=1)
    model = build(write(saved, tmp_path / name), seed=2)
    assert equal(model.state_dict(), saved.state_dict()) == set(saved.state_dict())


def test_a_plain_state_is_read_as_well(tmp_path: Path) -> None:
    saved = build(seed=1)
    torch.save(saved.state_dict(), tmp_path / "state.pth")
    model = build(tmp_path / "state.pth", seed=2)
    assert equal(model.state_dict(), saved.state_dict()) == set(saved.state_dict())


def test_a_head_of_other_classes_is_new(tmp_path: Path) -> None:
    saved = build(seed=1, num_classes=9)
    model = build(write(saved, tmp_path / "weights.safetensors"), seed=2)
    fresh = build(seed=2)
    assert model.get_parameter("head.weight").shape == (5, 64)
    head = {"head.weight", "head.bias"}
    assert equal(model.state_dict(), fresh.state_dict()) >= head
    others = set(model.state_dict()) - head
    shared = {name: saved.state_dict()[name] for name in others}
    assert equal(shared, model.state_dict()) == others


def test_reinitializing_goes_back_to_the_file(tmp_path: Path) -> None:
    saved = build(seed=1)
    path = write(saved, tmp_path / "weights.safetensors")
    model = build(path, seed=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    reinitialize_(
        model,
        ModelConfig(weights=path),
        num_classes=5,
        channels=3,
        generator=torch.Generator().manual_seed(3),
    )
    assert equal(model.state_dict(), saved.state_dict()) == set(saved.state_dict())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = write(build(name="resnet20"), tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: expected a tensor 'stage1"):
        build(path)
    path = write(build(channels=1), tmp_path / "gray.safetensors")
    with pytest.raises(CheckpointError, match=r"of shape \(16, 3, 3, 3\), got \(16, 1, 3, 3\)"):
        build(path)
    saved = build()
    saved.register_buffer("extra", torch.zeros(1))
    with pytest.raises(CheckpointError, match="expected only tensors of the model, got 'extra'"):
        build(write(saved, tmp_path / "more.safetensors"))


class Marker:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "hostile.pt"
    torch.save({"model": Marker(marker)}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: expected a safetensors file or a"):
        build(path)
    path.write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(CheckpointError, match=r"hostile\.pt: expected a safetensors file or a"):
        build(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    with pytest.raises(CheckpointError, match="expected a readable file, got: "):
        build(path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{name}: expected a safetensors file or a PyTorch"):
        build(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"model": [1, 2]}, tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match=r"list\.pt: expected names with tensors, got other"):
        build(tmp_path / "list.pt")


def test_pretrained_weights_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    published = torchvision.models.squeezenet1_1(weights=None).state_dict()
    monkeypatch.setattr(
        torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: published
    )
    model = build("pretrained", name="torchvision/squeezenet1_1")
    state = model.state_dict()
    assert set(state) - equal(
        {name: value for name, value in state.items() if "classifier" not in name}, published
    ) == {"classifier.1.weight", "classifier.1.bias"}
    with pytest.raises(CheckpointError, match=r"expected features\.0\.weight of shape \(64, 1, 3"):
        build("pretrained", name="torchvision/squeezenet1_1", channels=1)


def test_a_failing_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", fail)
    with pytest.raises(CheckpointError, match=r"of torchvision/.*, got: no route to host$"):
        build("pretrained", name="torchvision/squeezenet1_1")


def test_own_networks_have_no_pretrained_weights() -> None:
    with pytest.raises(ValidationError, match="expected a file of weights for 'small_cnn', got"):
        ModelConfig(weights="pretrained")
