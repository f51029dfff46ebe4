"""Training scripts of other libraries, run unmodified with a schedule in the place of their mixing.

A script is loaded as a module, so that its function ``train_one_epoch`` can be called with another
loader: one whose batches are mixed after they were moved, augmented and normalized.
"""

import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from automix.errors import AutoMixError, ConfigError
from automix.integrations.scheduled_mix import ScheduledMix
from automix.saliency.losses import Loss
from automix.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Epoch that a script is about to train, read from a call of its ``train_one_epoch``."""

    number: int
    num_epochs: int
    num_classes: int
    model: nn.Module
    loader: Any
    device: torch.device
    dtype: torch.dtype | None = None
    loss: Loss | None = None
    label_smoothing: float = 0.0
    seed: int = 0
    rank: int = 0
    mixes: bool = True


class MixedLoader:
    """A loader whose batches are mixed; everything else is that of the loader."""

    def __init__(self, epoch: Epoch, mix: ScheduledMix) -> None:
        self._loader, self._mix = epoch.loader, mix
        self._device, self._dtype = epoch.device, epoch.dtype

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in self._loader:
            # The script would move them later: saliency needs them beside the network.
            yield self._mix(
                images.to(self._device, self._dtype, non_blocking=True),
                targets.to(self._device, non_blocking=True),
            )


class MixedEpochs:
    """Stands in for a script's ``train_one_epoch``; the epoch says where the schedule is."""

    def __init__(
        self,
        train_one_epoch: Callable[..., Any],
        schedule: Schedule,
        *,
        loader: str,
        read: Callable[[Mapping[str, Any]], Epoch],
    ) -> None:
        """Take the function, the name of its argument for the loader, and a reader of a call."""
        self._train_one_epoch = train_one_epoch
        self._signature = inspect.signature(train_one_epoch)
        self._schedule, self._loader, self._read = schedule, loader, read
        self.mix: ScheduledMix | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Train an epoch whose batches are mixed."""
        call = self._signature.bind(*args, **kwargs)
        call.apply_defaults()
        epoch = self._read(call.arguments)
        if self.mix is None:
            self.mix = ScheduledMix(
                self._schedule,
                num_classes=epoch.num_classes,
                total_steps=max(1, epoch.num_epochs * len(epoch.loader)),
                model=epoch.model,
                loss=epoch.loss,
                label_smoothing=epoch.label_smoothing,
                seed=epoch.seed,
                rank=epoch.rank,
            )
        # Where batches are all of one size this changes nothing but in the first epoch of a resume.
        self.mix.set_progress(epoch=epoch.number, num_epochs=epoch.num_epochs)
        self.mix.mixup_enabled = epoch.mixes
        call.arguments[self._loader] = MixedLoader(epoch, self.mix)
        return self._train_one_epoch(*call.args, **call.kwargs)


def load_script(path: Path, arguments: list[str], *, needs: dict[str, set[str]]) -> ModuleType:
    """Return a script as a module that has not trained yet, with ``arguments`` as its own.

    Args:
        path: the script.
        arguments: its command line.
        needs: names of functions, and of the arguments that each has to take.

    Raises:
        ConfigError: there is no such file, or it is another script.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: expected a training script, got no such file")
    sys.argv[:] = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    # Under its own name, by which processes that load data find it.
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: expected a file of Python, got {path.suffix or 'another one'}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    for name, parameters in needs.items():
        function = getattr(module, name, None)
        taken = set(inspect.signature(function).parameters) if callable(function) else set()
        if function is None or not parameters <= taken:
            listed = ", ".join(sorted(parameters))
            raise ConfigError(f"{path}: expected a function {name}({listed}), got another script")
    return module


def load_schedule(text: str) -> Schedule:
    """Return the schedule of a file, or the one that is recommended where nothing was searched."""
    return Schedule.recommended() if text == "recommended" else Schedule.load(Path(text))


def warn_of_unused(options: list[str]) -> None:
    """Say which options for mixing of a script have no effect."""
    if options:
        warnings.warn(
            f"{', '.join(options)}: expected none, as the schedule says what is mixed, got a "
            "value, which has no effect",
            stacklevel=2,
        )


def main(run: Callable[[Schedule, Path, list[str]], None], *, usage: str) -> None:
    """Run a command line ``SCHEDULE SCRIPT ARGS...``; leave with one line after an error."""
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: {usage}")
    schedule, script, *arguments = sys.argv[1:]
    try:
        run(load_schedule(schedule), Path(script), arguments)
    except AutoMixError as error:
        raise SystemExit(f"error: {error}") from None
