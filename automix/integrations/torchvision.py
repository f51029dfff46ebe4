"""torchvision's ``references/classification/train.py``, unmodified, with a schedule.

::

    python -m automix.integrations.torchvision SCHEDULE.json train.py ARGS...
    torchrun --nproc-per-node 2 -m automix.integrations.torchvision SCHEDULE.json train.py ARGS...
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from automix.errors import ConfigError
from automix.integrations.scripts import Epoch, MixedEpochs, load_script, main, warn_of_unused
from automix.schedule import Schedule

_USAGE = "python -m automix.integrations.torchvision SCHEDULE.json|recommended train.py ARGS..."


def train(schedule: Schedule, script: Path, arguments: list[str]) -> None:
    """Run torchvision's reference script with a schedule.

    Batches are mixed in the training process, after the loader's worker processes. The script's
    loss, ``CrossEntropyLoss`` with its ``--label-smoothing``, takes soft targets as it is; a
    resumed run continues where its epoch is.

    Args:
        schedule: what to do when; as long as the run, in epochs.
        script: ``train.py``, or one that was derived from it.
        arguments: those of the script.

    Raises:
        ConfigError: it is another script, or its dataset has no ``classes``.
    """
    module = load_script(
        script,
        arguments,
        needs={
            "main": {"args"},
            "get_args_parser": set(),
            "train_one_epoch": {"model", "data_loader", "device", "epoch", "args"},
        },
    )
    args = module.get_args_parser().parse_args()
    names = ("mixup_alpha", "cutmix_alpha")
    used = [name for name in names if getattr(args, name, 0.0)]
    warn_of_unused([f"--{name.replace('_', '-')}" for name in used])
    # The script then makes plain batches.
    for name in used:
        setattr(args, name, 0.0)
    epochs = MixedEpochs(module.train_one_epoch, schedule, loader="data_loader", read=_epoch)
    setattr(module, "train_one_epoch", epochs)  # noqa: B010  # mypy knows no modules' names
    module.main(args)


def _epoch(call: Mapping[str, Any]) -> Epoch:
    args, loader = call["args"], call["data_loader"]
    classes = getattr(loader.dataset, "classes", None)
    if classes is None:
        kind = type(loader.dataset).__name__
        raise ConfigError(f"classes: expected a dataset with a list of its classes, got {kind}")
    return Epoch(
        number=call["epoch"],
        num_epochs=args.epochs,
        num_classes=len(classes),
        model=call["model"],
        loader=loader,
        device=torch.device(call["device"]),
        rank=getattr(args, "rank", 0),
    )


if __name__ == "__main__":
    main(train, usage=_USAGE)
