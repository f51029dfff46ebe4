"""Whether a folder is decoded once or streamed."""

import logging

from automix.data.config import DataConfig, Loading
from automix.data.decode import read_header, refusing_bombs
from automix.data.folder import FolderListing
from automix.data.memory import format_bytes, main_memory

_log = logging.getLogger(__name__)

# The other half is for the copies of splits that were cut, and for everything else.
_SHARE_OF_MEMORY = 0.5


def chosen_loading(config: DataConfig, listing: FolderListing) -> Loading:
    """Decide whether the images of a folder are decoded once or streamed, and say so in the log.

    Decoded sizes are estimated from their number and ``image_size``; without one the images have
    to be of one size, which only reading all of them shows, so they are decoded once. The choice
    depends on how much memory there is, not on how much is free: it is the same from run to run.

    Raises:
        DataError: the first image cannot be read.
    """
    if config.loading is not Loading.AUTO:
        _log.info("%s: %s, as wanted", listing.root, config.loading)
        return config.loading
    size = config.target_size
    if size is None:
        return Loading.RESIDENT
    count = sum(len(files) for files in listing.parts.values())
    with refusing_bombs():
        channels = 1 if read_header(listing.root / listing.parts["train"][0].name).is_grey else 3
    num_bytes = count * channels * size[0] * size[1]
    available = main_memory()
    fits = available is None or num_bytes <= _SHARE_OF_MEMORY * available
    choice = Loading.RESIDENT if fits else Loading.STREAMING
    _log.info(
        "%s: %s: %d images of %d x %d x %d take %s, %s half of the memory (%s)",
        listing.root,
        choice,
        count,
        channels,
        *size,
        format_bytes(num_bytes),
        "at most" if fits else "more than",
        "unknown" if available is None else format_bytes(available),
    )
    return choice
