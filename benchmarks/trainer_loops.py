"""The loops that `benchmarks.trainer` times: the trainer's own in every use, and one by hand."""

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from automix.configuration.data import AugmentConfig, DataConfig
from automix.configuration.task import ModelConfig, SaliencyConfig, TaskConfig
from automix.configuration.trainer import TrainerConfig
from automix.data.splits import ChannelStatistics, SearchData, Split
from automix.models.build import build_model
from automix.operator_info import OPERATOR_FACTS, Operator, SaliencyKind
from automix.random_streams import Stream, stream_generator
from automix.schedule import Decision
from automix.training.trainer import build_trainer
from automix.training.updates import make_optimizer
from benchmarks.measure import clock_for, wait_for

PLAIN = "no mixing"
# What we promise, on a CPU with preact_resnet18 at 32 x 32.
PLAIN_LIMIT, RANDOM_LIMIT, CHEAP_LIMIT, FULL_LIMIT = 1.03, 1.05, 1.25, 1.75
_AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BATCHES_HELD = 4
_MATMUL_SIDE = {"cpu": 1024}
_MATMUL_ROUNDS, _MATMUL_CALLS = 7, 4

Steps = Callable[[int], object]
"""Trains for so many steps."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Images per second of the trainer against a loop written by hand."""

    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="preact_resnet18")
    )
    """The network."""
    batch_size: int = 64
    """Images per step."""
    size: int = 32
    """Rows and columns of an image."""
    channels: int = 3
    """Channels of an image."""
    classes: int = 100
    """Classes."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of the training passes, of both loops."""
    channels_last: bool = False
    """Memory format, of both loops."""
    compile: bool = False
    """torch.compile, of both loops."""
    threads: int = 1
    """Threads of torch. One on a CPU is timed by its own clock, which stands still as it waits."""
    steps: int = 1
    """Steps that are timed at once."""
    rounds: int = 9
    """Times each row is timed."""
    only: tuple[str, ...] = ()
    """Rows to time besides the loop by hand, by name; all if none is given."""
    json: Path | None = None
    """File for the figures."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A way to use the trainer.

    Attributes:
        operator: what batches are mixed with.
        saliency: where it gets its maps from, if it needs any.
        ema_decay: of averaged weights, which the loop by hand does not have.
        period: steps after which the cost of steps repeats.
        limit: largest multiple of the loop by hand that we promise.
    """

    operator: Operator
    saliency: SaliencyConfig = dataclasses.field(default_factory=SaliencyConfig)
    ema_decay: float = 0.0
    period: int = 1
    limit: float | None = None


def all_cases() -> dict[str, Case]:
    """Return every row but the first: each operator, and each source with one operator."""
    cases = {
        PLAIN: Case(operator=Operator.NONE, limit=PLAIN_LIMIT),
        f"{PLAIN}, averaged weights": Case(operator=Operator.NONE, ema_decay=0.999),
    }
    for operator, facts in OPERATOR_FACTS.items():
        if operator is not Operator.NONE:
            limit = FULL_LIMIT if facts.needs_saliency else RANDOM_LIMIT
            cases[operator.value] = Case(operator=operator, limit=limit)
    sources = {
        "reduced gradient": SaliencyConfig(source=SaliencyKind.REDUCED_GRADIENT),
        "layer gradient, stage3": SaliencyConfig(
            source=SaliencyKind.LAYER_GRADIENT, layer="stage3"
        ),
        "spectral residual": SaliencyConfig(source=SaliencyKind.SPECTRAL_RESIDUAL),
        "input gradient every 4 steps": SaliencyConfig(refresh_every=4),
    }
    for name, saliency in sources.items():
        cases[f"{Operator.SALIENCY_GRAFTING.value}, {name}"] = Case(
            operator=Operator.SALIENCY_GRAFTING,
            saliency=saliency,
            period=saliency.refresh_every,
            limit=CHEAP_LIMIT,
        )
    return cases


def trainer_config(options: Options, *, ema_decay: float = 0.0) -> TrainerConfig:
    """Return the configuration that both loops follow."""
    return TrainerConfig(
        epochs=1_000_000,
        batch_size=options.batch_size,
        learning_rate=0.01,
        learning_rate_schedule="constant",
        ema_decay=ema_decay,
        precision=options.precision,
        channels_last=options.channels_last,
        compile=options.compile,
    )


def trainer_of(case: Case, options: Options, device: torch.device) -> Steps:
    """Return the trainer's own loop on a few batches of noise."""
    task = TaskConfig(
        data=DataConfig(augment=AugmentConfig(crop_padding=4, horizontal_flip=True)),
        model=options.model,
        saliency=case.saliency,
        trainer=trainer_config(options, ema_decay=case.ema_decay),
    )
    trainer = build_trainer(task, noise(options), seed=0, device=device)
    decision = Decision(operator=case.operator)
    return lambda num_steps: trainer.train(decision, num_steps=num_steps)


def noise(options: Options) -> SearchData:
    """Return training images without any meaning."""
    generator = torch.Generator().manual_seed(0)
    count = _BATCHES_HELD * options.batch_size
    shape = (count, options.channels, options.size, options.size)
    split = Split(
        images=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
        labels=torch.randint(options.classes, (count,), generator=generator),
        num_classes=options.classes,
    )
    channels = (0.5,) * options.channels
    return SearchData(
        train=split,
        reward=split,
        selection=split,
        class_names=tuple(map(str, range(options.classes))),
        statistics=ChannelStatistics(mean=channels, std=channels),
        fingerprint="noise",
    )


def bare_loop(options: Options, device: torch.device) -> Steps:
    """Return a training loop as one writes it by hand, on one batch of floats."""
    model = network_of(options, device)
    optimizer = make_optimizer(model, trainer_config(options))
    run: Callable[..., Tensor] = torch.compile(model) if options.compile else model
    scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
    images, labels = float_batch(options, device)

    def train(num_steps: int) -> None:
        model.train()
        for _ in range(num_steps):
            with torch.autocast(
                device.type,
                dtype=_AUTOCAST[options.precision],
                enabled=options.precision != "fp32",
            ):
                loss = F.cross_entropy(run(images), labels)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    return train


def network_of(options: Options, device: torch.device) -> nn.Module:
    """Return the network, where and as both loops have it."""
    model = build_model(
        options.model,
        num_classes=options.classes,
        channels=options.channels,
        generator=stream_generator(0, Stream.INITIALIZATION),
    )
    layout = torch.channels_last if options.channels_last else torch.preserve_format
    return model.to(device).to(memory_format=layout)


def float_batch(options: Options, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return normalized images and their labels."""
    split = noise(options).train
    images, labels = split.take(torch.arange(options.batch_size))
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    floats = (images.to(device).float() / 127.5 - 1).contiguous(memory_format=layout)
    return floats, labels.to(device)


def flops_per_step(options: Options, device: torch.device) -> int:
    """Return the floating-point operations of forward and backward pass, counted by torch."""
    model, (images, labels) = network_of(options, device), float_batch(options, device)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(F.cross_entropy(model(images), labels))
    return int(counter.get_total_flops())


def matmul_rate(options: Options, device: torch.device) -> float:
    """Return the FLOP/s that large matrix products reach in the precision of the network."""
    side = _MATMUL_SIDE.get(device.type, 8192)
    matrix = torch.randn(side, side, device=device, dtype=_AUTOCAST[options.precision])
    clock, times = clock_for(device), []
    for _ in range(_MATMUL_ROUNDS):
        wait_for(device)
        started = clock()
        for _ in range(_MATMUL_CALLS):
            matrix @ matrix
        wait_for(device)
        times.append((clock() - started) / _MATMUL_CALLS)
    return 2 * side**3 / statistics.median(times)
