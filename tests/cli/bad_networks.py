"""Networks, options of vision transformers and files of labels that are wrong."""

import importlib.util
import io
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save

from tests.cli.bad_folders import picture
from tests.cli.mistake import BadInput

_NETWORKS = "tests.models.users_networks"


def bad_network(
    name: str, flags: str, message: str, files: Mapping[str, str | bytes | None] | None = None
) -> BadInput:
    return BadInput(
        name=f"network: {name}", argv=f"search {flags}", files=files or {}, message=message
    )


def bad_factory(name: str, factory: str, message: str, **files: str) -> BadInput:
    return bad_network(
        name,
        f"--task.model.factory {factory}",
        message,
        {f"{module}.py": text for module, text in files.items()},
    )


def pickled() -> bytes:
    """Return an array of objects, which is no file of weights."""
    stream = io.BytesIO()
    np.save(stream, np.array([object]), allow_pickle=True)
    return stream.getvalue()


# An extra.
_TIMM = [
    bad_network(
        "an unknown tag",
        "--task.model.name timm/test_vit.r224_in1k",
        "model.name: expected one of timm/test_vit.r160_in1k, got 'timm/test_vit.r224_in1k'",
    ),
    bad_network(
        "an unknown name of timm",
        "--task.model.name timm/resnet81",
        "model.name: expected one of the... classifiers of timm, got 'timm/resnet81' (did you "
        "mean...",
    ),
]

NETWORKS = [
    *(_TIMM if importlib.util.find_spec("timm") else ()),
    bad_factory(
        "no such module",
        "nowhere.networks:make",
        "task.model.factory: expected a module 'nowhere.networks' that can be imported, got "
        "ModuleNotFoundError: No module named 'nowhere'",
    ),
    bad_factory(
        "a module with a mistake",
        "unfinished_networks:make",
        "task.model.factory: expected a module 'unfinished_networks' that can be imported, got "
        "SyntaxError:...",
        unfinished_networks="def make(:",
    ),
    bad_factory(
        "no such function",
        f"{_NETWORKS}:tinny",
        f"task.model.factory: expected a function 'tinny' in the module '{_NETWORKS}', got none",
    ),
    bad_factory(
        "no function",
        f"{_NETWORKS}:NOT_A_FUNCTION",
        f"task.model.factory: expected {_NETWORKS}:NOT_A_FUNCTION to be a function, got a int",
    ),
    bad_factory(
        "a factory that raises",
        f"{_NETWORKS}:raising",
        f"task.model.factory: expected {_NETWORKS}:raising(num_classes=10) to return a network, "
        "got RuntimeError: no network of 10 classes",
    ),
    bad_factory(
        "a factory of something else",
        f"{_NETWORKS}:no_module",
        f"task.model.factory: expected {_NETWORKS}:no_module to return a torch.nn.Module, got a "
        "list",
    ),
    bad_factory(
        "a network of other classes",
        f"{_NETWORKS}:eleven",
        "task.model.factory: expected a classifier that trains on batches of 2 images of "
        f"1 x 8 x 8, got '{_NETWORKS}:eleven': its output is no logits of 10 classes, but (2, 11)",
    ),
    bad_factory(
        "a file for a function",
        "networks.py",
        "--task.model.factory: expected package.module:function, got 'networks.py'",
    ),
    bad_network(
        "a factory and a name",
        f"--task.model.factory {_NETWORKS}:tiny --task.model.name resnet20",
        "--task.model: expected neither name nor width with a factory, got resnet20",
    ),
    bad_network(
        "pretrained weights that nobody has",
        "--task.model.weights pretrained",
        "--task.model: expected a file of weights for 'small_cnn', got 'pretrained', which "
        "only torchvision/<name> and timm/<name> have",
    ),
    bad_network(
        "weights that are not there",
        "--task.model.weights nowhere.safetensors",
        "nowhere.safetensors: expected a readable file, got: no such file or directory",
    ),
    bad_network(
        "weights of another network",
        "--task.model.weights other.safetensors",
        "other.safetensors: expected a tensor... got none",
        {"other.safetensors": save({"stem.weight": np.zeros((2, 2), np.float32)})},
    ),
    bad_network(
        "weights that are none",
        "--task.model.weights weights.pt",
        "weights.pt: expected...",
        {"weights.pt": pickled()},
    ),
    bad_network(
        "attention of a convolutional network",
        "--task.saliency.source attention_rollout",
        "task: saliency: expected a network with attention among all tokens of an image, got none",
    ),
    bad_network(
        "labels by the attention of a convolutional network",
        "--task.operators.attention-labels 0.5",
        "task.operators.attention_labels: expected a network with attention among all tokens of "
        "an image, got none in 'small_cnn'",
    ),
    bad_network(
        "too much attention",
        "--task.operators.attention-labels 1.5",
        "--task.operators.attention-labels: expected less than or equal to 1, got 1.5",
    ),
    bad_network(
        "patches that do not divide the images",
        "--task.operators.patch-size 3",
        "task.operators.patch_size: expected a divisor of 8 x 8 pixels, got 3",
    ),
    bad_network(
        "patches of a network without them",
        "--task.operators.patch-size network",
        "task.operators.patch_size: expected a number of pixels for a network whose first "
        "convolution cuts no square patches, got 'network'",
    ),
    bad_network(
        "an unknown layer",
        "--task.saliency.source layer_gradient --task.saliency.layer blocks.8",
        "task: saliency: expected a pass through network and loss for images torch.float32 of "
        "shape (2, 1, 8, 8), got ValueError: expected the name of a module of the model, got "
        "'blocks.8'...",
    ),
    bad_network(
        "weights of some of the classes",
        "--task.trainer.class-weights 1 2 3",
        "task.trainer.class_weights: expected 10 numbers, one for each class, got 3",
    ),
    bad_network(
        "stochastic depth without residual blocks",
        "--task.model.drop-path 0.1",
        "--task.model.drop-path: expected nothing with 'small_cnn', which has none, got 0.1",
    ),
    bad_network(
        "activations again in a network without that mode",
        "--task.trainer.gradient-checkpointing",
        "task.trainer.gradient_checkpointing: expected false for a network without such a mode, "
        "got true for...",
    ),
]


def bad_labels(name: str, text: str, message: str, *, file: str = "labels.csv") -> BadInput:
    images = {f"photos/{number}.png": picture(number) for number in range(1, 41)}
    return BadInput(
        name=f"labels: {name}",
        argv=f"search photos --task.data.labels {file} --task.trainer.loss binary_cross_entropy",
        files=images | {"labels.csv": text},
        message=message,
    )


def _table(header: str, *, count: int = 40) -> str:
    rows = [f"{number}.png,{number % 2},{number // 2 % 2}" for number in range(1, count + 1)]
    return "\n".join([header, *rows])


LABELS = [
    bad_labels(
        "no file",
        "",
        "nowhere.csv: expected a readable file, got: no such file or directory",
        file="nowhere.csv",
    ),
    bad_labels(
        "an image that is not there",
        _table("image,cat,dog", count=41),
        "labels.csv: expected '41.png' in photos, got no such file...",
    ),
    bad_labels(
        "an unknown first column",
        _table("file,cat,dog"),
        "labels.csv, line 1: expected 'image' as the name of the first column...",
    ),
    bad_labels(
        "a class without an image",
        _table("image,cat,dog").replace(",1\n", ",0\n"),
        "labels.csv: expected an image of every class, got none of 'dog'",
    ),
    bad_labels(
        "a word for a label",
        _table("image,cat,dog").replace("12.png,0", "12.png,yes"),
        "labels.csv, line 13: expected 0 or 1 for 'cat', got 'yes'",
    ),
]
