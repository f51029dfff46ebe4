"""Configuration of a training run: task, compute, checkpoints and replay. Free of torch."""

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from automix.configuration.base import Config, shown
from automix.configuration.data import DataConfig
from automix.configuration.operators import OperatorOptions
from automix.configuration.trainer import TrainerConfig
from automix.operator_info import SaliencyKind, Statistics

SMALL_CNN = "small_cnn"
# Patterns of the families, because help and messages must not import torch to list models; names
# of torchvision and timm are checked when the model is built.
RESNET = re.compile(r"resnet(20|32|44|56|110)")
PREACT_RESNET = re.compile(r"preact_resnet(18|34|50|101)")
WIDE_RESNET = re.compile(r"wide_resnet(\d{2,3})_(\d{1,2})")
RESNEXT = re.compile(r"resnext(\d{2,3})_(\d{1,3})x(\d{1,3})")
LIBRARY = re.compile(r"(torchvision|timm)/([A-Za-z0-9_.]+)")
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")

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


Rate = Annotated[float, Field(ge=0, lt=1)]


def _factory_name(name: str) -> str:
    if not _FACTORY.fullmatch(name):
        raise ValueError(f"expected package.module:function, got {shown(name)}")
    return name


FactoryName = Annotated[str, AfterValidator(_factory_name)]
"""Names a function that returns a network, ``package.module:function``."""


class ModelConfig(Config):
    """The classifier."""

    name: str = SMALL_CNN
    """Architecture: small_cnn; resnet20, 32, 44, 56 or 110; preact_resnet18, 34, 50 or 101;
    wide_resnet<depth>_<widening>, as in wide_resnet16_8; resnext29_4x24 (depth, groups, channels);
    torchvision/<name>; timm/<name> (needs the extra timm)."""

    factory: FactoryName | None = None
    """Function that returns a network of your own, package.module:function, in the place of name.
    Called with num_classes and, where its signature has them, in_channels and image_size. Its code
    is run: name your own."""

    width: int | None = Field(default=None, ge=1, le=1024)
    """Channels of the first stage; later stages are multiples of it. Only for small_cnn and resnet
    (default: 16) and preact_resnet (default: 64)."""

    weights: Literal["pretrained"] | Path | None = None
    """Initial weights: pretrained (of torchvision or timm, downloaded unless cached), or a
    safetensors or PyTorch file. The head is new if the number of classes differs. None: random."""

    dropout: Rate | None = None
    """Dropout rate of a network of torchvision or timm that has dropout. Default: the library's."""

    drop_path: Rate | None = None
    """Stochastic depth of a network of torchvision or timm that has it: probability of leaving out
    the last residual block, falling linearly to 0 for the first. Default: the library's."""

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

    @property
    def title(self) -> str:
        """Name of the network in reports: its factory, or its architecture."""
        return self.factory or self.name

    @model_validator(mode="after")
    def _factory_stands_alone(self) -> Self:
        if self.factory is not None and (self.name != SMALL_CNN or self.width is not None):
            got = self.name if self.name != SMALL_CNN else f"width {self.width}"
            raise ValueError(f"expected neither name nor width with a factory, got {got}")
        return self

    @model_validator(mode="after")
    def _pretrained_exists(self) -> Self:
        if self.weights == "pretrained" and self.factory is not None:
            raise ValueError(
                "expected a file of weights or none with a factory, which may load its own, got "
                "'pretrained'"
            )
        if self.weights == "pretrained" and not LIBRARY.fullmatch(self.name):
            raise ValueError(
                f"expected a file of weights for {self.name!r}, got 'pretrained', which only "
                "torchvision/<name> and timm/<name> have"
            )
        return self

    @field_validator("dropout", "drop_path")
    @classmethod
    def _library_drops(cls, rate: float | None, info: ValidationInfo) -> float | None:
        name = info.data.get("name")
        if rate is not None and name is not None and not LIBRARY.fullmatch(name):
            raise ValueError(f"expected nothing with {name!r}, which has none, got {rate:g}")
        return rate

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
    spectral_residual: from the image alone, almost free. attention_rollout: of a vision
    transformer, the attention of its class token to the patches through all layers."""

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

    # A run that was begun on one machine may be resumed on a cluster.
    without_influence = frozenset(
        {"executor", "address", "gpus", "timeout", "max_failures", "max_failures_in_all"}
    )

    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Processes that train, outside the search. The results do not depend on it."""

    population: Annotated[int, Field(ge=1, le=64)] | None = None
    """Training runs of one process that are trained at once, as one network. Null: chosen from
    cores and a short timing when the command begins, and said. The last bits of the results depend
    on it. 1: one after the other."""

    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads per training run. The last bits of the results depend on it."""

    executor: Literal["auto", "in_process", "processes", "ray"] = "auto"
    """Execution of the training runs side by side, with the same results: in this process, in
    processes of this machine, or on Ray (extra `ray`). auto: processes, or this process where
    workers is 1."""

    address: str | None = None
    """Address of a running Ray cluster, host:port or `auto`. Null: that in RAY_ADDRESS, else a
    private cluster on this machine, which ends with the command."""

    gpus: Annotated[float, Field(ge=0, le=1024)] | None = None
    """GPUs that a worker on Ray reserves; 0.5: two workers share one. Null: one where the cluster
    has any. The CPUs are its threads."""

    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which a worker that has not finished its training runs, or a segment of them,
    is taken for hung and replaced. Null: ten times the longest so far, and a minute. A worker that
    gives no sign of life is replaced after a minute, or this time if it is shorter."""

    max_failures: Annotated[int, Field(ge=0)] = 3
    """Workers that may be lost (killed, hung) in the same training runs, which are done again with
    the same result."""

    max_failures_in_all: Annotated[int, Field(ge=0)] = 100
    """Workers that may be lost in a stage of a command, whatever they did."""

    @model_validator(mode="after")
    def _an_address_is_of_ray(self) -> Self:
        if self.address is not None and self.executor != "ray":
            raise ValueError(f"expected executor ray with an address, got {self.executor}")
        return self


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
