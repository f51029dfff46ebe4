"""Configuration of a training run: model, saliency source, trainer. Free of torch."""

import difflib
import itertools
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from automix.configuration.base import Config, shown
from automix.configuration.data import DataConfig

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


class SaliencyKind(StrEnum):
    """Where a saliency map comes from."""

    INPUT_GRADIENT = "input_gradient"
    LAYER_GRADIENT = "layer_gradient"
    REDUCED_GRADIENT = "reduced_gradient"
    SPECTRAL_RESIDUAL = "spectral_residual"


class Statistics(StrEnum):
    """What the batch-norm layers normalize with during a saliency pass."""

    BATCH = "batch"
    """Layers in train mode use this batch's statistics, layers in eval mode the running ones."""

    RUNNING = "running"
    """All layers use their running statistics, as in eval mode."""


class SaliencyConfig(Config):
    """The saliency source of the operators that need one."""

    source: SaliencyKind = SaliencyKind.INPUT_GRADIENT
    """input_gradient: the reference, about two thirds of a training step; layer_gradient: at a
    named layer, cheaper the later the layer; reduced_gradient: of the shrunken image, cheaper with
    the square of the scale; spectral_residual: from the image alone, almost free."""

    layer: str | None = Field(default=None, min_length=1)
    """Module whose output the gradient is taken at, such as stage2; for layer_gradient only."""

    scale: float | None = Field(default=None, gt=0, lt=1)
    """Side of the shrunken image, as a share; none: 0.5; for reduced_gradient only."""

    statistics: Statistics = Statistics.BATCH
    """What batch norm normalizes with during the pass: batch (as in training) or running."""

    refresh_every: int = Field(default=1, ge=1, le=10_000)
    """Steps from one saliency pass to the next. Above 1 every batch of images is held for so many
    steps in a row and mixed anew in each, under every operator, so that its maps stay in use."""

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "SaliencyConfig":
        if self.source is SaliencyKind.LAYER_GRADIENT and self.layer is None:
            raise ValueError("expected a layer with layer_gradient, got none")
        if self.source is not SaliencyKind.LAYER_GRADIENT and self.layer is not None:
            raise ValueError(f"expected no layer with {self.source}, got {self.layer!r}")
        if self.source is not SaliencyKind.REDUCED_GRADIENT and self.scale is not None:
            raise ValueError(f"expected no scale with {self.source}, got {self.scale}")
        if self.source is SaliencyKind.SPECTRAL_RESIDUAL:
            if self.refresh_every > 1:
                raise ValueError(
                    f"expected refresh_every 1 with {self.source} (keeping maps costs more than "
                    f"computing them), got {self.refresh_every}"
                )
            if self.statistics is not Statistics.BATCH:
                raise ValueError(f"expected no statistics with {self.source} (it has no network)")
        return self


Share = Annotated[float, Field(gt=0, lt=1)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]


class TrainerConfig(Config):
    """Length, optimizer, precision and averaging of one training run."""

    epochs: Annotated[int, Field(ge=1)] = 80
    """Passes over the training split."""

    batch_size: Annotated[int, Field(ge=1)] = 50
    """Images per optimizer step, over all processes and micro-batches. Incomplete last batches are
    dropped, unless the training split is smaller than one batch."""

    accumulation: Annotated[int, Field(ge=1)] = 1
    """Micro-batches per optimizer step, one after the other, each mixed for itself: as many times
    less memory. Must divide batch_size."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: with Nesterov momentum. adamw: Adam with decoupled weight decay; wants a
    learning_rate of about 1e-3."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    """Largest learning rate of the training."""

    learning_rate_schedule: Literal["one_cycle", "cosine", "multi_step", "constant"] = "one_cycle"
    """Learning rate as a function of progress: up and linearly down (one_cycle), down along a
    cosine, down in steps at milestones (multi_step), or flat (constant)."""

    warmup: DecayRate | None = None
    """Share of the training in which the learning rate rises linearly; not for constant.
    Default: 0.2 for one_cycle and cosine, 0 for multi_step."""

    milestones: Annotated[tuple[Share, ...], Field(min_length=1)] | None = Field(
        default=None, validate_default=True
    )
    """Shares of the training at which the learning rate drops, rising; for multi_step only."""

    milestone_factor: Share | None = None
    """What the learning rate is multiplied by at each milestone; for multi_step only.
    Default: 0.1."""

    momentum: DecayRate | None = None
    """Nesterov momentum; for sgd only. Default: 0.9."""

    betas: tuple[DecayRate, DecayRate] | None = None
    """Decay per step of the running means of gradients and of their squares; for adamw only.
    Default: 0.9 and 0.999."""

    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """sgd: L2 penalty on weights. adamw: share of the learning rate by which weights shrink per
    step. Norms and biases are spared."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay per step of the averaged weights that are evaluated; 0 evaluates the raw weights."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each target that is spread evenly over all classes."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients are scaled down to this norm; null leaves them as they are."""

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the training passes. With bf16 and fp16 (autocast) weights, losses, saliency
    and evaluation remain in 32 bits; fp16 scales the loss as needed."""

    channels_last: bool = False
    """Keep the channels of a pixel next to one another in memory: faster convolutions on most
    accelerators, above all with bf16 and fp16."""

    compile: bool = False
    """Compile the training passes with torch.compile: a minute or more at the start, faster
    steps afterwards. Results differ in the last bits."""

    def steps_per_epoch(self, num_images: int) -> int:
        """Return the optimizer steps of one pass over ``num_images`` training images."""
        return num_images // min(self.batch_size, num_images)

    def total_steps(self, num_images: int) -> int:
        """Return the optimizer steps of a whole training run on ``num_images`` training images."""
        return self.epochs * self.steps_per_epoch(num_images)

    @property
    def warmup_share(self) -> float:
        """Share of the training in which the learning rate rises."""
        if self.warmup is not None:
            return self.warmup
        return 0.2 if self.learning_rate_schedule in {"one_cycle", "cosine"} else 0.0

    @field_validator("accumulation")
    @classmethod
    def _divides_the_batch(cls, accumulation: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and batch_size % accumulation:
            raise ValueError(f"expected a divisor of batch_size {batch_size}, got {accumulation}")
        return accumulation

    @field_validator("warmup")
    @classmethod
    def _warmup_has_effect(cls, warmup: float | None, info: ValidationInfo) -> float | None:
        if warmup is not None and info.data.get("learning_rate_schedule") == "constant":
            raise ValueError(f"expected nothing for the schedule 'constant', got {warmup}")
        return warmup

    @field_validator("milestones")
    @classmethod
    def _milestones_fit(
        cls, milestones: tuple[float, ...] | None, info: ValidationInfo
    ) -> tuple[float, ...] | None:
        schedule = info.data.get("learning_rate_schedule")
        if schedule == "multi_step" and milestones is None:
            raise ValueError("expected shares such as [0.5, 0.75], got none")
        if milestones is None or schedule is None:
            return milestones
        if schedule != "multi_step":
            raise ValueError(f"expected nothing for the schedule '{schedule}', got {milestones}")
        shares = (info.data.get("warmup") or 0.0, *milestones)
        if any(share >= following for share, following in itertools.pairwise(shares)):
            raise ValueError(f"expected rising shares after the warmup, got {milestones}")
        return milestones

    @field_validator("milestone_factor")
    @classmethod
    def _factor_has_effect(cls, factor: float | None, info: ValidationInfo) -> float | None:
        schedule = info.data.get("learning_rate_schedule")
        if factor is not None and schedule not in {None, "multi_step"}:
            raise ValueError(f"expected nothing for the schedule '{schedule}', got {factor}")
        return factor

    @field_validator("momentum", "betas")
    @classmethod
    def _belongs_to_the_optimizer(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        owner = "sgd" if info.field_name == "momentum" else "adamw"
        if value is not None and optimizer not in {None, owner}:
            raise ValueError(f"expected nothing for the optimizer '{optimizer}', got {value}")
        return value


class TaskConfig(Config):
    """What is trained, on which images, and how."""

    data: DataConfig = Field(default_factory=DataConfig)
    """Where the images come from and how they are split."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    """The classifier."""

    saliency: SaliencyConfig = Field(default_factory=SaliencyConfig)
    """Where operators that need saliency get it from."""

    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    """Length, optimizer and averaging of one training run."""
