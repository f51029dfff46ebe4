"""timm's ``train.py``, unmodified, with a schedule in the place of its mixup and cutmix.

::

    python -m automix.integrations.timm SCHEDULE.json train.py ARGS...
    torchrun --nproc-per-node 2 -m automix.integrations.timm SCHEDULE.json train.py ARGS...
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from automix.errors import ConfigError
from automix.integrations.scripts import Epoch, MixedEpochs, load_script, main, warn_of_unused
from automix.schedule import Schedule

_USAGE = "python -m automix.integrations.timm SCHEDULE.json|recommended train.py ARGS..."


def train(schedule: Schedule, script: Path, arguments: list[str]) -> None:
    """Run timm's training script with a schedule.

    Batches are mixed when they are on the device, normalized and erased, with the prefetcher or
    without. The loss is the one for soft targets, whether ``arguments`` hold ``--mixup`` or not. A
    resumed run continues where its epoch is; ``--mixup-off-epoch`` ends the mixing, as in timm.

    Args:
        schedule: what to do when; as long as the run, in epochs.
        script: ``train.py`` of timm 0.9 or later, or one that was derived from it.
        arguments: those of the script. ``--smoothing`` and ``--seed`` hold for the schedule, too.

    Raises:
        ConfigError: it is another script, or trains in a way that no schedule can mix:
            ``--naflex-loader``, ``--aug-splits``, ``--jsd-loss``, ``--mixup 0``.
    """
    # First, so that a value of the user counts; above 0 it makes the loss one for soft targets.
    module = load_script(
        script,
        ["--mixup", "1", *arguments],
        needs={
            "main": set(),
            "train_one_epoch": {"epoch", "model", "loader", "args", "device"},
        },
    )
    requests = _Requests()
    # No collate function and no `mixup_fn`: the loader makes plain batches.
    for name in ("Mixup", "FastCollateMixup"):
        setattr(module, name, requests.mixup)
    for name in ("create_scheduler", "create_scheduler_v2"):
        if hasattr(module, name):
            setattr(module, name, requests.scheduler(getattr(module, name)))
    epochs = MixedEpochs(module.train_one_epoch, schedule, loader="loader", read=requests.epoch)
    setattr(module, "train_one_epoch", epochs)  # noqa: B010  # mypy knows no modules' names
    module.main()


class _Requests:
    """Requests that the script makes elsewhere than in its calls of `train_one_epoch`."""

    def __init__(self) -> None:
        self.mixup_options: dict[str, Any] | None = None
        self.num_epochs: int | None = None

    def mixup(self, **options: Any) -> None:
        """Stand in for timm's mixing classes."""
        self.mixup_options = options
        without_effect = {
            "mixup_alpha": 1.0, "cutmix_alpha": 0.0, "cutmix_minmax": None, "prob": 1.0,
            "mode": "batch", "switch_prob": 0.5,
        }  # fmt: skip
        names = {"mixup_alpha": "mixup", "cutmix_alpha": "cutmix", "cutmix_minmax": "cutmix-minmax"}
        warn_of_unused(
            [
                f"--{names.get(name) or 'mixup-' + name.replace('_', '-')}"
                for name, default in without_effect.items()
                if options.get(name, default) != default
            ]
        )

    def scheduler(self, create: Callable[..., Any]) -> Callable[..., Any]:
        """Return timm's function for learning rates, which also counts the epochs."""

        def created(*args: Any, **kwargs: Any) -> Any:
            scheduler, self.num_epochs = create(*args, **kwargs)
            return scheduler, self.num_epochs

        return created

    def epoch(self, call: Mapping[str, Any]) -> Epoch:
        """Read a call of `train_one_epoch`.

        Raises:
            ConfigError: no schedule can mix what it trains.
        """
        args = call["args"]
        self._check(args)
        assert self.mixup_options is not None
        off = getattr(args, "mixup_off_epoch", 0)
        return Epoch(
            number=call["epoch"],
            num_epochs=self.num_epochs or args.epochs,
            num_classes=self.mixup_options["num_classes"],
            model=call["model"],
            loader=call["loader"],
            device=call["device"],
            dtype=call.get("model_dtype"),
            loss=_loss(call),
            label_smoothing=self.mixup_options["label_smoothing"],
            seed=args.seed,
            rank=getattr(args, "rank", 0),
            mixes=not off or call["epoch"] < off,
        )

    def _check(self, args: Any) -> None:
        for name in ("naflex_loader", "jsd_loss", "aug_splits"):
            if value := getattr(args, name, None):
                raise ConfigError(
                    f"--{name.replace('_', '-')}: expected none with a schedule, which mixes "
                    f"batches of images and soft targets, got {value}"
                )
        if self.mixup_options is None:
            raise ConfigError(
                "--mixup: expected a number above 0, as the loss then takes soft targets, got "
                f"{args.mixup:g}"
            )


def _loss(call: Mapping[str, Any]) -> Any:
    """Return the loss of the script if it is not the cross-entropy, which saliency has anyway."""
    criterion = call.get("loss_fn") or getattr(call.get("task"), "criterion", None)
    is_default = type(criterion).__name__ == "SoftTargetCrossEntropy"
    return None if is_default or not isinstance(criterion, nn.Module) else criterion


if __name__ == "__main__":
    main(train, usage=_USAGE)
