"""The embedded default: scikit-learn's 1,797 scans of handwritten digits, 8 x 8 pixels."""

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from automix.data.decode import ImageFormat, to_format
from automix.data.pools import Pool, Pools, images_checksum
from automix.data.splits import Split


def digits(size: tuple[int, int] | None = None) -> Pools:
    """Return all scans in their published order, as one pool; nothing is downloaded or cached.

    The images have shape (1, 8, 8); the original values 0 to 16 are scaled to 0 to 255.

    Args:
        size: (height, width) in pixels to resize to; None keeps 8 x 8.
    """
    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    if size is not None:
        wanted = ImageFormat(channels=1, height=size[0], width=size[1], resize=True)
        images = np.stack([to_format(Image.fromarray(image[0]), wanted) for image in images])
    split = Split(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        num_classes=len(bunch.target_names),
    )
    pool = Pool(split=split, checksum=images_checksum(split), where="digits")
    names = tuple(str(name) for name in bunch.target_names)
    return Pools(train=pool, val=None, test=None, class_names=names)
