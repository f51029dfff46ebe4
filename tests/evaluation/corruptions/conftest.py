import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor


@pytest.fixture(scope="session")
def cifar_photos(shared_folder: Path) -> Tensor:
    """1,000 photographs, (N, 3, 32, 32) uint8."""
    archive = shared_folder / "data" / "cifar10-jpeg.zip"
    if not archive.is_file():
        pytest.skip("the photographs are not on this machine")
    with zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if "test/" in name and ".jpg" in name)
        arrays = []
        for name in names[::10]:
            with files.open(name) as stream:
                arrays.append(np.array(Image.open(stream)))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
