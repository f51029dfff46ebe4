"""A vision transformer of a few kilobytes in timm's registry, with a tag and a data configuration.

Imported for that: ``timm/automix_tiny_vit.of_tests`` is then a name as any other.
"""

from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

NAME = "automix_tiny_vit.of_tests"

default_cfgs = timm.models.generate_default_cfgs(
    {
        NAME: {
            "num_classes": 7,
            "input_size": (3, 16, 16),
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 0.8,
            "mean": (0.4, 0.5, 0.6),
            "std": (0.2, 0.25, 0.3),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": "mit",
        }
    }
)


@timm.models.register_model
def automix_tiny_vit(pretrained: bool = False, **options: Any) -> nn.Module:
    """Return 2 blocks of width 8 on patches of 2 x 2 pixels."""
    sizes = {"img_size": 16, "patch_size": 2, "embed_dim": 8, "depth": 2, "num_heads": 2}
    network: nn.Module = timm.models.build_model_with_cfg(
        VisionTransformer, "automix_tiny_vit", pretrained, **(sizes | options)
    )
    return network
