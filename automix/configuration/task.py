"""Configuration of a training run: task, compute, checkpoints and replay. Free of torch."""

import difflib
import itertools
import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from automix.configuration.base import Config, shown
from automix.configuration.data import DataConfig
from automix.configuration.operators import OperatorOptions
from automix.operator_info import SaliencyKind, Statistics

SMALL_CNN = "small_cnn"
# One-cycle starts at this fraction of the maximum; one_cycle and cosine end at 0.
_ONE_CYCLE_START = 0.05
_MILESTONE_FACTOR = 0.1
# Patterns of the families, because help and messages must not import torch to list models; names
# of torchvision and timm are checked when the model is built.
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
"""Names listed in messages; the patterns above accept the rest of each family."""

_EXPECTED = f"expected one of {', '.join(EXAMPLE_NAMES)}, torchvision/<name> or timm/<name>"


class ModelConfig(Config):
    """The classifier."""

    name: str = SMALL_CNN
    """Architecture: small_cnn; resnet20, 32, 44, 56 or 110; preact_resnet18, 34, 50 or 101;
    wide_resnet<depth>_<widening>, as in wide_resnet16_8; resnext29_4x24 (depth, groups, channels);
    torchvision/<name>; timm/<name> (needs the extra timm)."""

    width: int | None = Field(default=None, ge=1, le=1024)
    """Channels of the first stage; later stages are multiples of it. Only for small_cnn and resnet
    (default: 16) and preact_resnet (default: 64)."""

    weights: Literal["pretrained"] | Path | None = None
    """Initial weights: pretrained (of torchvision or timm, downloaded unless cached), or a
    safetensors or PyTorch file. The head is new if the number of classes differs. None: random."""

    @field_validator("name")
    @classmethod
    def _name_exists(cls, name: str) -> str:
        patterns = (RESNET, PREACT_RESNET, WIDE_RESNET, RESNEXT, LIBRARY)
        if name == SMALL_CNN or any(pattern.fullmatch(name) for pattern in patterns):
            return name
        close = difflib.get_close_matches(name, EXAMPLE_NAMES, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"{_EXPECTED}, got {shown(name)}{hint}")

    @field_validator("name")
    @classmethod
    def _possible_depth(cls, name: str) -> str:
        # n residual units per stage: depth 6 n + 4 (arXiv:1605.07146), and 9 n + 2 with the three
        # convolutions of a ResNeXt unit (arXiv:1611.05431).
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
    def _pretrained_exists(self) -> Self:
        if self.weights == "pretrained" and not LIBRARY.fullmatch(self.name):
            raise ValueError(
                f"expected a file of weights for {self.name!r}, got 'pretrained', which only "
                "torchvision/<name> and timm/<name> have"
            )
        return self

    @model_validator(mode="after")
    def _width_has_an_effect(self) -> Self:
        # Names of wide ResNets and ResNeXts hold their width; libraries have no such option.
        scalable = RESNET.fullmatch(self.name) or PREACT_RESNET.fullmatch(self.name)
        if self.width is not None and not scalable and self.name != SMALL_CNN:
            raise ValueError(f"expected no width with {self.name!r}, got {self.width}")
        return self


def _is_depth(depth: int, offset: int, multiple: int) -> bool:
    return depth > offset and (depth - offset) % multiple == 0


class SaliencyConfig(Config):
    """The saliency source of the operators that need one."""

    source: SaliencyKind = SaliencyKind.INPUT_GRADIENT
    """Saliency method. input_gradient: the reference, about two thirds of the time of a training
    step. layer_gradient: gradient at a named layer, cheaper for later layers. reduced_gradient:
    input gradient of the downscaled image, whose cost falls with the square of scale.
    spectral_residual: from the image alone, almost free."""

    layer: str | None = Field(default=None, min_length=1)
    """Module at whose output the gradient is taken, such as stage2; for layer_gradient only."""

    scale: float | None = Field(default=None, gt=0, lt=1)
    """Side of the downscaled image as a fraction of the original; for reduced_gradient only.
    Default: 0.5."""

    statistics: Statistics = Statistics.BATCH
    """Batch-norm statistics during the saliency pass: batch (as in training) or running."""

    refresh_every: int = Field(default=1, ge=1, le=10_000)
    """Optimizer steps per saliency pass. Above 1, every batch of images is kept for that many steps
    in a row and mixed anew in each, under every operator, so that its saliency maps can be
    reused."""

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        if self.source is SaliencyKind.LAYER_GRADIENT and self.layer is None:
            raise ValueError("expected a layer with layer_gradient, got none")
        if self.source is not SaliencyKind.LAYER_GRADIENT and self.layer is not None:
            raise ValueError(f"expected no layer with {self.source}, got {self.layer!r}")
        if self.source is not SaliencyKind.REDUCED_GRADIENT and self.scale is not None:
            raise ValueError(f"expected no scale with {self.source}, got {self.scale}")
        # Without a network there are no statistics, and nothing that is worth keeping.
        if self.source is SaliencyKind.SPECTRAL_RESIDUAL:
            if self.refresh_every > 1:
                raise ValueError(
                    f"expected refresh_every 1 with {self.source} (keeping maps costs more than "
                    f"computing them), got {self.refresh_every}"
                )
            if self.statistics is not Statistics.BATCH:
                raise ValueError(f"expected no statistics with {self.source} (it has no network)")
        return self


Precision = Literal["fp32", "bf16", "fp16"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
DecayRate = Annotated[float, Field(ge=0, lt=1)]


class TrainerConfig(Config):
    """Length, optimizer, precision and averaging of one training run."""

    epochs: Annotated[int, Field(ge=1)] = 80
    """Number of passes over the training split."""

    batch_size: Annotated[int, Field(ge=1)] = 50
    """Images per optimizer step, summed over processes and micro-batches. The last, incomplete
    batch of an epoch is dropped, unless the training split is smaller than one batch."""

    accumulation: Annotated[int, Field(ge=1)] = 1
    """Gradient accumulation: micro-batches per optimizer step, each mixed on its own. Divides
    memory by this number. Must divide batch_size."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd: SGD with Nesterov momentum. adamw: Adam with decoupled weight decay; needs a
    learning_rate of about 1e-3."""

    learning_rate: Annotated[float, Field(gt=0)] = 0.2
    """Maximum learning rate."""

    learning_rate_schedule: Literal["one_cycle", "cosine", "multi_step", "constant"] = "one_cycle"
    """Learning rate schedule: linear warmup and linear decay (one_cycle), cosine decay (cosine),
    drops at milestones (multi_step), or constant."""

    warmup: DecayRate | None = None
    """Fraction of the training run with linear warmup of the learning rate; not for constant.
    Default: 0.2 for one_cycle and cosine, 0 for multi_step."""

    milestones: Annotated[tuple[Fraction, ...], Field(min_length=1)] | None = Field(
        default=None, validate_default=True
    )
    """Points of the training run, as increasing fractions of it, at which the learning rate drops;
    for multi_step only."""

    milestone_factor: Fraction | None = None
    """Factor that multiplies the learning rate at each milestone; for multi_step only.
    Default: 0.1."""

    momentum: DecayRate | None = None
    """Nesterov momentum; for sgd only. Default: 0.9."""

    betas: tuple[DecayRate, DecayRate] | None = None
    """Decay rates of the running means of the gradients and of their squares; for adamw only.
    Default: 0.9 and 0.999."""

    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Weight decay: an L2 penalty with sgd, decoupled with adamw. Not applied to biases and
    normalization layers."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay per step of the exponential moving average of the weights, which is evaluated and
    exported; 0: no averaging."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing: fraction of each target that is spread evenly over all classes."""

    loss: Literal["cross_entropy", "decoupled"] = "cross_entropy"
    """cross_entropy: with the mixed labels. decoupled: plus the term of Decoupled Mixup, with which
    both classes of a mixed image may be confident; for batches of two parents."""

    decoupled_eta: Annotated[float, Field(gt=0)] | None = None
    """Weight of the term; for decoupled only. Default: the published one, 0.01 for Mixup, FMix and
    SaliencyMix, else 0.1."""

    decoupled_mode: Literal["both", "less", "more"] | None = None
    """Which of the two parents the term is of: both, the one with the smaller part of the label
    (less), or with the larger (more); for decoupled only. Default: both."""

    clean_loss: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the cross-entropy on the unmixed images that is added to the loss of a mixed batch,
    by a second pass through the network. Co-Mixup is published with 2 over the number of
    classes."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Maximum norm of the gradient, which is clipped to it; null: no clipping."""

    precision: Precision | None = None
    """Precision of the training passes. bf16 and fp16 use autocast: weights, losses, saliency and
    evaluation stay in float32; fp16 adds dynamic loss scaling. Default: bf16 on an accelerator that
    computes in it, else fp32."""

    channels_last: bool = False
    """Use the channels-last memory format: faster convolutions on most accelerators, above all with
    bf16 and fp16."""

    compile: bool = False
    """Compile the training passes with torch.compile: takes a minute or more at the start, steps
    are faster afterwards. Results differ in the last bits."""

    cuda_graphs: bool = False
    """With compile, on an NVIDIA GPU: launch all kernels of a training pass at once, as a CUDA
    graph. Faster for small networks and batches; takes more memory."""

    def steps_per_epoch(self, num_images: int) -> int:
        """Return the optimizer steps of one pass over ``num_images`` training images."""
        return num_images // min(self.batch_size, num_images)

    def total_steps(self, num_images: int) -> int:
        """Return the optimizer steps of a whole training run on ``num_images`` training images."""
        return self.epochs * self.steps_per_epoch(num_images)

    @property
    def warmup_fraction(self) -> float:
        """Fraction of the training run in which the learning rate rises."""
        if self.warmup is not None:
            return self.warmup
        return 0.2 if self.learning_rate_schedule in {"one_cycle", "cosine"} else 0.0

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate at ``progress``, the fraction of the run done, in [0, 1]."""
        # A function of progress, without a counter of its own: nothing to save, and a search on 20
        # epochs and a replay on 200 have the same curve.
        warmup = self.warmup_fraction
        if progress < warmup:
            rising = progress / warmup
            if self.learning_rate_schedule == "one_cycle":
                rising = _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * rising
            return self.learning_rate * rising
        falling = (progress - warmup) / (1 - warmup)
        match self.learning_rate_schedule:
            case "one_cycle":
                return self.learning_rate * (1 - falling)
            case "cosine":
                return self.learning_rate * 0.5 * (1 + math.cos(math.pi * falling))
            case "multi_step":
                factor = self.milestone_factor or _MILESTONE_FACTOR
                passed = sum(progress >= milestone for milestone in self.milestones or ())
                return self.learning_rate * factor**passed
            case "constant":
                return self.learning_rate

    # Here and below, info.data lacks a field that is itself wrong: its own message is enough.
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
        # No default: where the rate drops is a choice of the experiment.
        if schedule == "multi_step" and milestones is None:
            raise ValueError("expected fractions such as [0.5, 0.75], got none")
        if milestones is None or schedule is None:
            return milestones
        if schedule != "multi_step":
            raise ValueError(f"expected nothing for the schedule '{schedule}', got {milestones}")
        points = (info.data.get("warmup") or 0.0, *milestones)
        if any(point >= following for point, following in itertools.pairwise(points)):
            raise ValueError(f"expected increasing fractions after the warmup, got {milestones}")
        return milestones

    @field_validator("cuda_graphs")
    @classmethod
    def _graphs_have_effect(cls, cuda_graphs: bool, info: ValidationInfo) -> bool:
        if cuda_graphs and info.data.get("compile") is False:
            raise ValueError("expected false without compile, got True")
        return cuda_graphs

    @model_validator(mode="after")
    def _one_pass_in_a_graph(self) -> Self:
        # The outputs of one pass are overwritten by the next, before the backward pass reads them.
        if self.cuda_graphs and self.clean_loss:
            raise ValueError(f"expected clean_loss 0 with cuda_graphs, got {self.clean_loss:g}")
        return self

    @field_validator("milestone_factor")
    @classmethod
    def _factor_has_effect(cls, factor: float | None, info: ValidationInfo) -> float | None:
        schedule = info.data.get("learning_rate_schedule")
        if factor is not None and schedule not in {None, "multi_step"}:
            raise ValueError(f"expected nothing for the schedule '{schedule}', got {factor}")
        return factor

    @field_validator("decoupled_eta", "decoupled_mode")
    @classmethod
    def _belongs_to_the_loss(cls, value: Any, info: ValidationInfo) -> Any:
        loss = info.data.get("loss")
        if value is not None and loss not in {None, "decoupled"}:
            raise ValueError(f"expected nothing for the loss '{loss}', got {value}")
        return value

    @field_validator("momentum", "betas")
    @classmethod
    def _belongs_to_the_optimizer(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        owner = "sgd" if info.field_name == "momentum" else "adamw"
        if value is not None and optimizer not in {None, owner}:
            raise ValueError(f"expected nothing for the optimizer '{optimizer}', got {value}")
        return value


class TaskConfig(Config):
    """A training task: data, model, saliency and trainer."""

    data: DataConfig = Field(default_factory=DataConfig)
    """Source and splits of the images."""

    model: ModelConfig = Field(default_factory=ModelConfig)
    """The classifier."""

    saliency: SaliencyConfig = Field(default_factory=SaliencyConfig)
    """Saliency maps for the operators that need them."""

    operators: OperatorOptions = Field(default_factory=OperatorOptions)
    """Options of operators beside their strength, for published recipes."""

    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    """Length, optimizer and averaging of one training run."""


class ComputeConfig(Config):
    """Processes and threads of training runs. On a CPU, sums are split among the threads."""

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Processes that train, outside the search. The results do not depend on it."""

    population: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training runs of one process that are trained at once, as one network. Null: chosen from
    cores and a short timing when the command begins, and said. The last bits of the results depend
    on it. 1: one after the other."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads per training run. The last bits of the results depend on it."""


class CheckpointConfig(Config):
    """Checkpoints of a training run.

    One is written at its end, and one when it is interrupted, whatever is set here.
    """

    every_minutes: Annotated[float, Field(gt=0)] | None = 10.0
    """Minutes between checkpoints; null: no checkpoints by time."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Optimizer steps between checkpoints; null: no checkpoints by steps."""

    keep: Annotated[int, Field(ge=1)] = 2
    """Number of most recent checkpoints to keep. With 2 or more, a damaged one can be skipped. The
    best one on the selection split is kept in addition."""


class ReplayConfig(Config):
    """Train one classifier with a schedule and evaluate it."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random seed of the training run: initialization, order of the images, augmentation and
    mixing."""

    task: TaskConfig = Field(default_factory=TaskConfig)
    """Dataset, model and training recipe. Any length, model and dataset will do: a schedule is
    stated in fractions of a training run."""

    validations: Annotated[int, Field(ge=0)] = 10
    """Number of evaluations on the selection split, evenly spaced, the last one at the end of the
    training run. None without a selection split (task.data.selection-size 0)."""

    weights: Literal["last", "best"] = "last"
    """Weights that are exported and evaluated on the test split: the last ones, or the best ones,
    those with the lowest calibrated NLL among the validations."""

    checkpoints: CheckpointConfig = Field(default_factory=CheckpointConfig)
    """Checkpoints during the training run."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig)
    """Threads of the training run."""

    @model_validator(mode="after")
    def _the_best_is_of_some(self) -> Self:
        if self.weights == "best" and not self.validations:
            raise ValueError("expected validations of at least 1 with weights best, got 0")
        return self
