"""Where images are held while training: beside the model where they fit."""

import logging

import torch

from automix.data.config import Placement
from automix.data.memory import format_bytes

_log = logging.getLogger(__name__)

# The other half is for weights, activations and gradients.
_SHARE_OF_FREE_MEMORY = 0.5


def holding_device(
    num_bytes: int, *, device: torch.device | str, placement: Placement
) -> torch.device:
    """Decide where images are held, and say so in the log.

    Args:
        num_bytes: size of the images, as `SearchData.num_bytes` and `DataSet.num_bytes` tell it.
        device: where the model is.
        placement: device or host force the choice; auto takes the device where the images need at
            most half of its free memory.

    Returns:
        ``device`` or the CPU; hand it to ``to`` of the data.
    """
    wanted, host = torch.device(device), torch.device("cpu")
    size = f"{format_bytes(num_bytes)} of images"
    if wanted.type == host.type or placement is Placement.HOST:
        _log.info("%s are held in main memory", size)
        return host
    if placement is Placement.DEVICE:
        _log.info("%s are held on %s, as wanted", size, wanted)
        return wanted
    free = _free_memory(wanted)
    fits = num_bytes <= _SHARE_OF_FREE_MEMORY * free
    place = wanted if fits else host
    relation = "at most" if fits else "more than"
    _log.info("%s are held on %s: %s half of %s free", size, place, relation, format_bytes(free))
    return place


def _free_memory(device: torch.device) -> int:
    """Return the free memory of an accelerator in bytes; 0 where its driver does not tell."""
    try:
        free, _ = torch.accelerator.get_memory_info(device)
    except (RuntimeError, NotImplementedError):
        return 0
    return free
