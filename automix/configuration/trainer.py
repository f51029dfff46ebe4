"""Configuration of one training run: length, optimizer, precision, averaging. Free of torch."""

import itertools
import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from automix.configuration.base import Config

# One-cycle starts at this fraction of the maximum; one_cycle and cosine end at 0.
_ONE_CYCLE_START = 0.05
_MILESTONE_FACTOR = 0.1

Precision = Literal["fp32", "bf16", "fp16"]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ClassWeight = Annotated[float, Field(ge=0)]
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

    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Maximum learning rate of the head, the last layer; it follows the same schedule. Default:
    learning_rate."""

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Layer-wise decay of the learning rate: each layer learns this much slower than the one after
    it, the head at the full rate. 0.65 to 0.9 are usual for pretrained vision transformers."""

    freeze_body: DecayRate = 0.0
    """Fraction of the training run, from its beginning, in which only the head is trained. The
    batch-norm statistics of the body are another field, freeze_batch_norm."""

    freeze_batch_norm: bool = False
    """Normalize with the batch-norm statistics of the initial weights and leave them as they are:
    for pretrained networks and small batches. Scales and shifts are trained."""

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

    ema_warmup: bool = True
    """Let the decay rise to ema_decay, as (1 + t) / (10 + t) after t steps; false: ema_decay from
    the first step on."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing: fraction of each target that is spread evenly over all classes."""

    class_weights: Literal["balanced"] | tuple[ClassWeight, ...] | None = None
    """Weight of each class in the loss: numbers in the order of the classes, or balanced: inverse
    to its training images, 1 on average over them. A mixed image has the weights of its labels."""

    logit_adjustment: Annotated[float, Field(ge=0)] = 0.0
    """Logit adjustment: this many times the log of each class's fraction of the training images is
    added to the logits in the training loss, so that rare classes are not held back; 1 is usual."""

    loss: Literal["cross_entropy", "decoupled", "binary_cross_entropy"] = "cross_entropy"
    """cross_entropy: with the mixed labels. binary_cross_entropy: of each label, the mean over
    them, for images with several labels (data.labels). decoupled: plus the term of Decoupled Mixup,
    with which both classes of a mixed image may be confident; for batches of two parents."""

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

    auxiliary_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the loss of each auxiliary head, added to that of the logits; for networks that
    return auxiliary logits in training, as Inception does. 0: the logits alone. Default: 0.4."""

    max_grad_norm: Annotated[float, Field(gt=0)] | None = None
    """Maximum norm of the gradient, which is clipped to it; null: no clipping."""

    precision: Precision | None = None
    """Precision of the training passes. bf16 and fp16 use autocast: weights, losses, saliency and
    evaluation stay in float32; fp16 adds dynamic loss scaling. Default: bf16 on an accelerator that
    computes in it, else fp32."""

    gradient_checkpointing: bool = False
    """Keep the activations of few layers and compute the others again in the backward pass: less
    memory for about a third more time. For networks of timm and Transformers that support it."""

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
    def auxiliary_weight_or_default(self) -> float:
        """Weight of the loss of each auxiliary head."""
        # As Inception is fine-tuned in torchvision's examples.
        return 0.4 if self.auxiliary_weight is None else self.auxiliary_weight

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

    @property
    def tells_layers_apart(self) -> bool:
        """Whether layers have learning rates of their own, or are frozen."""
        has_head = self.head_learning_rate is not None
        return has_head or self.layer_decay < 1 or self.freeze_body > 0

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

    @field_validator("ema_warmup")
    @classmethod
    def _has_an_average(cls, ema_warmup: bool, info: ValidationInfo) -> bool:
        if not ema_warmup and info.data.get("ema_decay") == 0:
            raise ValueError("expected true where ema_decay is 0, got False")
        return ema_warmup

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

    @model_validator(mode="after")
    def _has_no_softmax(self) -> Self:
        if self.loss == "binary_cross_entropy":
            for name in ("label_smoothing", "class_weights", "logit_adjustment"):
                if value := getattr(self, name):
                    raise ValueError(f"expected no {name} with loss {self.loss}, got {value}")
        return self

    @field_validator("momentum", "betas")
    @classmethod
    def _belongs_to_the_optimizer(cls, value: Any, info: ValidationInfo) -> Any:
        optimizer = info.data.get("optimizer")
        owner = "sgd" if info.field_name == "momentum" else "adamw"
        if value is not None and optimizer not in {None, owner}:
            raise ValueError(f"expected nothing for the optimizer '{optimizer}', got {value}")
        return value
