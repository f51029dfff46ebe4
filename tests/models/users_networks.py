"""Networks as users write them, for `task.model.factory`: small, and with every kind of output."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class InceptionOutputs(NamedTuple):
    """As torchvision's network returns them in training."""

    logits: Tensor
    aux_logits: Tensor | None


@dataclass
class Answer:
    logits: Tensor
    features: Tensor
    aux_head: Tensor


class Tiny(nn.Module):
    """A convolution, a pool, and a head with an auxiliary one beside it."""

    def __init__(self, num_classes: int, in_channels: int = 1, *, kind: str = "tensor") -> None:
        super().__init__()
        self.kind = kind
        self.body = nn.Sequential(nn.Conv2d(in_channels, 4, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(4, num_classes)
        self.aux = nn.Linear(4, num_classes)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, images: Tensor) -> Any:
        features = self.body(images).mean(dim=(2, 3)) * self.scale
        logits, auxiliary = self.head(features), self.aux(features.detach())
        match self.kind:
            case "inception":
                return InceptionOutputs(logits, auxiliary) if self.training else logits
            case "tuple":
                return logits, auxiliary, features
            case "mapping":
                return {"features": features, "logits": logits, "aux": auxiliary}
            case "dataclass":
                return Answer(logits, features, auxiliary)
        return logits


def tiny(num_classes: int, in_channels: int) -> nn.Module:
    return Tiny(num_classes, in_channels)


def inception(num_classes: int, in_channels: int) -> nn.Module:
    return Tiny(num_classes, in_channels, kind="inception")


def tuples(num_classes: int, in_channels: int) -> nn.Module:
    return Tiny(num_classes, in_channels, kind="tuple")


def mappings(num_classes: int, **options: object) -> nn.Module:
    assert not options
    return Tiny(num_classes, kind="mapping")


def dataclasses(num_classes: int, in_channels: int) -> nn.Module:
    return Tiny(num_classes, in_channels, kind="dataclass")


def transformers_vit(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    import transformers  # noqa: PLC0415  # an extra

    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=image_size[0],
        patch_size=4,
        num_channels=in_channels,
        num_labels=num_classes,
    )
    network: nn.Module = transformers.ViTForImageClassification(config)
    return network


def timm_vit(num_classes: int, in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    import timm  # noqa: PLC0415  # an extra

    network: nn.Module = timm.models.vision_transformer.VisionTransformer(
        img_size=image_size,
        patch_size=2,
        in_chans=in_channels,
        num_classes=num_classes,
        embed_dim=8,
        depth=2,
        num_heads=2,
    )
    return network


def eleven(num_classes: int) -> nn.Module:
    return Tiny(num_classes + 1)


def raising(num_classes: int) -> nn.Module:
    raise RuntimeError(f"no network of {num_classes} classes\nand a second line")


def no_module(num_classes: int) -> list[int]:
    return [num_classes]


def without_parameters(num_classes: int) -> nn.Module:
    return nn.Flatten()


def without_classes() -> nn.Module:
    return nn.Flatten()


def only_features(num_classes: int, in_channels: int) -> nn.Module:
    class Features(Tiny):
        def forward(self, images: Tensor) -> Any:
            return {"features": self.body(images)}

    return Features(num_classes, in_channels)


NOT_A_FUNCTION = 3
