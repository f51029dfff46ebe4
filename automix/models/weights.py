"""Initial weights from a file or from the library that a network comes from."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from automix.errors import CheckpointError
from automix.messages import shown

# Where training scripts put the network among other things.
_NESTED_UNDER = ("model", "state_dict")
# What the restricted unpickler raises for damaged or hostile content.
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
# The heads that GoogLeNet and Inception have for training from scratch.
_PARTS_LEFT_OUT = ("aux1.", "aux2.", "AuxLogits.")


def load_weights_(model: nn.Module, path: Path) -> None:
    """Copy the tensors of a file into ``model``; a head of another number of classes stays.

    Args:
        model: any module; its last layer is taken for the head.
        path: a safetensors file, or one of `torch.save` with a mapping of names to tensors (also
            under the key model or state_dict). It is read without running any code in it.

    Raises:
        CheckpointError: the file cannot be read, or a tensor is missing, unknown or of another
            shape.
    """
    copy_weights_(model, _read(path), source=str(path))


def torchvision_weights(name: str) -> Mapping[str, Tensor]:
    """Return torchvision's best weights of a classifier, downloaded to its cache if need be.

    Raises:
        CheckpointError: they cannot be downloaded.
    """
    # Importing it loads torch's compiler: 2 of the 5 seconds that every command would take.
    import torchvision  # noqa: PLC0415

    weights = torchvision.models.get_model_weights(name).DEFAULT
    with download_errors(f"torchvision/{name}"):
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    return {key: value for key, value in state.items() if not key.startswith(_PARTS_LEFT_OUT)}


@contextmanager
def download_errors(name: str) -> Iterator[None]:
    """Turn what goes wrong while weights are downloaded into one line.

    Raises:
        CheckpointError: in place of an OSError (no network, no space) or RuntimeError (no such
            weights, wrong hash).
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"model.weights: expected to download those of {name}, got: {reason}"
        ) from None


@torch.no_grad()
def copy_weights_(model: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Copy named tensors into ``model``; a head of another number of classes stays.

    Args:
        model: any module; its last layer is taken for the head.
        weights: a tensor for each name in the state of ``model``.
        source: named in errors.

    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; nothing is copied.
    """
    state = model.state_dict()
    if missing := [name for name in state if name not in weights]:
        raise CheckpointError(f"{source}: expected a tensor {shown(missing[0])}, got none")
    if unknown := [name for name in weights if name not in state]:
        raise CheckpointError(
            f"{source}: expected only tensors of the model, got {shown(unknown[0])}"
        )
    head = next(reversed(list(model.named_parameters())))[0].rpartition(".")[0] + "."
    kept = [name for name in state if weights[name].shape != state[name].shape]
    for name in kept:
        if not name.startswith(head) or weights[name].shape[1:] != state[name].shape[1:]:
            expected, got = tuple(state[name].shape), tuple(weights[name].shape)
            raise CheckpointError(f"{source}: expected {name} of shape {expected}, got {got}")
    for name, tensor in state.items():
        if name not in kept:
            tensor.copy_(weights[name])


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            # Files of before torch 1.6 are bare pickles, which the restricted unpickler reads with
            # warnings and fails on with errors of every kind.
            if not zipfile.is_zipfile(file):
                raise pickle.UnpicklingError
        values = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CheckpointError(f"{path}: expected a readable file, got: {reason}") from None
    except (safetensors.SafetensorError, *_UNPICKLING_ERRORS):
        raise CheckpointError(
            f"{path}: expected a safetensors file or a PyTorch file of tensors, got another kind"
        ) from None
    for key in _NESTED_UNDER:
        if isinstance(values, Mapping) and isinstance(values.get(key), Mapping):
            values = values[key]
    if not isinstance(values, Mapping) or not all(
        isinstance(value, Tensor) for value in values.values()
    ):
        raise CheckpointError(f"{path}: expected names with tensors, got other values")
    return values
