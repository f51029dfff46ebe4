"""Which classifier: a name and, for some, a width. Free of torch, so that `--help` is fast."""

import difflib
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from automix.config import Config
from automix.messages import shown

SMALL_CNN = "small_cnn"
RESNET = re.compile(r"resnet(20|32|44|56|110)")
PREACT_RESNET = re.compile(r"preact_resnet(18|34|50|101)")
WIDE_RESNET = re.compile(r"wide_resnet(\d{2,3})_(\d{1,2})")
RESNEXT = re.compile(r"resnext(\d{2,3})_(\d{1,3})x(\d{1,3})")
LIBRARY = re.compile(r"(torchvision|timm)/([A-Za-z0-9_.]+)")

EXAMPLE_NAMES = (
    SMALL_CNN,
    "resnet20",
    "resnet32",
    "resnet56",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "wide_resnet16_8",
    "wide_resnet28_10",
    "resnext29_4x24",
)
"""The names shown to a user; the patterns above accept the rest of each family."""

_EXPECTED = f"expected one of {', '.join(EXAMPLE_NAMES)}, torchvision/<name> or timm/<name>"


class ModelConfig(Config):
    """The classifier that is trained."""

    name: str = SMALL_CNN
    """small_cnn; resnet20, 32, 44, 56 or 110; preact_resnet18, 34, 50 or 101;
    wide_resnet<depth>_<widening>, as in wide_resnet16_8; resnext29_4x24 (depth, groups, channels);
    torchvision/<name>; timm/<name> (needs the extra timm)."""

    width: int | None = Field(default=None, ge=1, le=1024)
    """Channels of the first stage, later stages are multiples of it; none: the family's own (16
    for small_cnn and resnet, 64 for preact_resnet). Only for these three families."""

    weights: Literal["pretrained"] | Path | None = None
    """Initial weights: pretrained (those of torchvision or timm, downloaded unless cached), or a
    safetensors or PyTorch file; the head is new if the classes are others. None: random."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        patterns = (RESNET, PREACT_RESNET, WIDE_RESNET, RESNEXT, LIBRARY)
        if name == SMALL_CNN or any(pattern.fullmatch(name) for pattern in patterns):
            return name
        close = difflib.get_close_matches(name, EXAMPLE_NAMES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"{_EXPECTED}, got {shown(name)}{hint}")

    @field_validator("name")
    @classmethod
    def _possible_depth(cls, name: str) -> str:
        if (wide := WIDE_RESNET.fullmatch(name)) and not _is_depth(int(wide[1]), 4, 6):
            raise ValueError(f"expected a depth of 6 n + 4 (10, 16, 22, 28, 40), got {name!r}")
        if wide and int(wide[2]) == 0:
            raise ValueError(f"expected a width of at least 1, got {name!r}")
        if (next_ := RESNEXT.fullmatch(name)) and not _is_depth(int(next_[1]), 2, 9):
            raise ValueError(f"expected a depth of 9 n + 2 (20, 29, 38, 56), got {name!r}")
        if next_ and 0 in (int(next_[2]), int(next_[3])):
            raise ValueError(f"expected groups and channels of at least 1, got {name!r}")
        return name

    @model_validator(mode="after")
    def _pretrained_exists(self) -> "ModelConfig":
        if self.weights == "pretrained" and not LIBRARY.fullmatch(self.name):
            raise ValueError(
                f"expected a file of weights for {self.name!r}, got 'pretrained', which only "
                "torchvision/<name> and timm/<name> have"
            )
        return self

    @model_validator(mode="after")
    def _width_has_an_effect(self) -> "ModelConfig":
        scalable = self.name == SMALL_CNN or any(
            pattern.fullmatch(self.name) for pattern in (RESNET, PREACT_RESNET)
        )
        if self.width is not None and not scalable:
            raise ValueError(f"expected no width with {self.name!r}, got {self.width}")
        return self


def _is_depth(depth: int, offset: int, multiple: int) -> bool:
    return depth > offset and (depth - offset) % multiple == 0
