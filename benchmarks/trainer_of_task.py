"""Training runs of a task against the same runs written by hand, and mixing with many classes.

    python -m benchmarks.trainer_of_task --config configs/search/digits.yaml

The loop by hand does what the trainer does for the task without mixing, with nothing in between: it
draws the order of an epoch, gathers bytes, normalizes, trains, follows the learning rate schedule,
averages the weights, and sums up loss and accuracy. Rounds are interleaved; a row is the median of
its CPU time over that of the loop by hand. The second table is the time of the mixing stage of a
step, Mixup with 256 images, by the number of classes.
"""

import copy
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

from automix.configuration.data import AugmentConfig
from automix.configuration.task import TaskConfig
from automix.data.splits import SearchData, Split
from automix.experiments.config import SearchConfig
from automix.mixing import StepKey, mix_step
from automix.models.build import build_model
from automix.operator_info import Operator
from automix.random_streams import Stream, stream_generator
from automix.schedule import Decision
from automix.training.trainer import build_trainer, load_search_data, training_device
from automix.training.updates import make_optimizer
from benchmarks.measure import clock_for, keep_freed_memory, wait_for
from benchmarks.trainer_loops import Steps

_OPERATORS = (Operator.NONE, Operator.MIXUP, Operator.CUTMIX, Operator.SALIENCY_GRAFTING)
_NUM_CLASSES = (10, 1_000, 21_841)
_MIXED_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """Training runs of a task against the same runs written by hand."""

    config: Path = Path("configs/search/digits.yaml")
    """Search whose task is trained."""
    steps: int = 60
    """Optimizer steps per round."""
    rounds: int = 15
    """Interleaved rounds; medians count."""


def trainer_of_task(
    operator: Operator, task: TaskConfig, data: SearchData, device: torch.device
) -> Steps:
    """Return the trainer's own loop, which starts over where a training run ends."""
    trainer = build_trainer(task, data, seed=0, device=device)
    decision = Decision(operator=operator)

    def train(num_steps: int) -> None:
        if trainer.step + num_steps > trainer.total_steps:
            trainer.reset(0)
        trainer.train(decision, num_steps=num_steps)

    return train


def loop_of_task(task: TaskConfig, data: SearchData, device: torch.device) -> Steps:
    """Return a loop by hand that trains as ``task`` says, without mixing.

    Raises:
        ValueError: the task asks for augmentation, or for a step that this loop does not do.
    """
    config, split = task.trainer, data.train
    _check_plain(task)
    assert isinstance(split, Split)
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    model = build_model(
        task.model,
        num_classes=data.num_classes,
        channels=data.image_shape[0],
        generator=stream_generator(0, Stream.INITIALIZATION),
    )
    model = model.to(device).to(memory_format=memory_format)
    averaged = copy.deepcopy(model)
    weights, averages = (
        [value for value in module.state_dict().values() if value.is_floating_point()]
        for module in (model, averaged)
    )
    optimizer = make_optimizer(model, config)
    images, labels = split.images.to(device), split.labels.to(device)
    scale, shift = _normalization(data, device)
    steps_per_epoch = config.steps_per_epoch(len(split))
    total_steps = config.total_steps(len(split))
    order, step = torch.empty(0), 0

    def train(num_steps: int) -> tuple[float, float]:
        nonlocal order, step
        model.train()
        loss_sum = torch.zeros((), device=device)
        correct = torch.zeros((), dtype=torch.int64, device=device)
        for _ in range(num_steps):
            place = step % steps_per_epoch
            if place == 0:
                order = torch.randperm(len(split)).to(device)
            index = order[place * config.batch_size : (place + 1) * config.batch_size]
            batch = images[index].float().mul_(scale).add_(shift)
            targets = labels[index]
            logits = model(batch.contiguous(memory_format=memory_format))
            loss = F.cross_entropy(logits, targets)
            torch.autograd.backward(loss)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step % total_steps / total_steps)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                if config.ema_decay:
                    torch._foreach_lerp_(averages, weights, 1 - config.ema_decay)
                loss_sum += loss
                correct += (logits.argmax(dim=1) == targets).sum()
            step += 1
        images_seen = num_steps * config.batch_size
        return loss_sum.item() / num_steps, correct.item() / images_seen

    return train


def _check_plain(task: TaskConfig) -> None:
    config = task.trainer
    plain = {"accumulation": 1, "label_smoothing": 0.0, "max_grad_norm": None}
    is_plain = all(getattr(config, name) == value for name, value in plain.items())
    if task.data.augment != AugmentConfig() or config.precision == "fp16" or not is_plain:
        raise ValueError(f"expected a task without augmentation and with {plain}")


def _normalization(data: SearchData, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factor and summand of a byte, per channel."""
    mean, std = (
        torch.tensor(values, device=device).view(1, -1, 1, 1)
        for values in (data.statistics.mean, data.statistics.std)
    )
    return 1 / (255 * std), -mean / std


def multiples(options: Options, device: torch.device) -> dict[str, float]:
    """Return the time of each operator's training over that of the loop by hand."""
    task = SearchConfig.from_yaml(options.config).task
    data = load_search_data(task.data)
    loops: dict[str, Steps] = {"loop by hand": loop_of_task(task, data, device)}
    loops |= {name.value: trainer_of_task(name, task, data, device) for name in _OPERATORS}
    clock, seconds = clock_for(device), {name: list[float]() for name in loops}
    for number in range(options.rounds + 1):
        for name, train in loops.items():
            wait_for(device)
            started = clock()
            train(options.steps)
            wait_for(device)
            # The first round allocates memory and chooses kernels.
            if number:
                seconds[name].append(clock() - started)
    bare = seconds["loop by hand"]
    return {
        name: statistics.median(time / by_hand for time, by_hand in zip(times, bare, strict=True))
        for name, times in seconds.items()
    }


def seconds_to_mix(num_classes: int, options: Options, *, with_targets: bool) -> float:
    """Return the least CPU time of mixing a batch, with rows of targets or without."""
    device = torch.device("cpu")
    images = torch.rand(_MIXED_IMAGES, 3, 32, 32)
    labels = torch.arange(_MIXED_IMAGES) % num_classes

    def mix() -> object:
        return mix_step(
            Decision(operator=Operator.MIXUP),
            images,
            labels,
            key=StepKey(seed=0, step=0),
            num_classes=num_classes,
            with_targets=with_targets,
        )

    return min(_seconds(mix, clock_for(device)) for _ in range(2 * options.rounds))


def _seconds(call: Callable[[], object], clock: Callable[[], float]) -> float:
    call()
    started = clock()
    call()
    return clock() - started


def main(options: Options) -> None:
    """Measure and print two tables."""
    keep_freed_memory()
    torch.set_num_threads(1)
    device = training_device()
    print(f"{options.config}, one thread, {device}, torch {torch.__version__}\n")
    print("| training | x by hand |\n|---|---:|")
    for name, multiple in multiples(options, device).items():
        print(f"| {name} | {multiple:.3f} |")
    print("\n| classes | mixing in the trainer, ms | with rows of targets, ms |\n|---:|---:|---:|")
    for count in _NUM_CLASSES:
        sparse, dense = (
            1e3 * seconds_to_mix(count, options, with_targets=rows) for rows in (False, True)
        )
        print(f"| {count:,} | {sparse:.2f} | {dense:.2f} |")


if __name__ == "__main__":
    main(tyro.cli(Options, description=Options.__doc__))
