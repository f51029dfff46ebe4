"""Configuration of the data: source, splits, augmentation. Free of torch: help loads fast."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import platformdirs
from pydantic import Field, ValidationInfo, field_validator, model_validator

from automix.configuration.base import Config

# 4096 x 4096 x 3 bytes are 48 MiB per decoded image; a larger number is a slip of the keyboard.
MAX_IMAGE_SIDE = 4096
_DEFAULT_FRACTION = 0.2
_DEFAULT_FRACTION_OF_VAL = 0.5
# torchvision's RandomResizedCrop.
DEFAULT_CROP_RATIO = (3 / 4, 4 / 3)

Side = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIDE)]
AreaFraction = Annotated[float, Field(gt=0, le=1)]
Strength = Annotated[float, Field(ge=0, le=10)]
HueShift = Annotated[float, Field(ge=0, le=0.5)]
AspectRatio = Annotated[float, Field(gt=0)]
Pair = tuple[float, float]
Values = tuple[float, ...]
Size = int | float
# A fraction of each class, or a number of images per class.
PartSize = Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0)]


class DataSource(StrEnum):
    """Source of the images."""

    DIGITS = "digits"
    FOLDER = "folder"
    CIFAR10 = "cifar10"
    CIFAR100 = "cifar100"
    MNIST = "mnist"
    FASHION_MNIST = "fashion_mnist"
    KMNIST = "kmnist"
    SVHN = "svhn"
    STL10 = "stl10"


class PaddingMode(StrEnum):
    """Content of the padding of a random crop."""

    ZERO = "zero"
    REFLECT = "reflect"


class Normalization(StrEnum):
    """Mean and standard deviation that images are normalized with."""

    AUTO = "auto"
    TRAIN = "train"
    IMAGENET = "imagenet"
    NONE = "none"


class Interpolation(StrEnum):
    """Filter that scales images."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"
    NEAREST = "nearest"


class Placement(StrEnum):
    """Memory that holds the images during training."""

    AUTO = "auto"
    DEVICE = "device"
    HOST = "host"


class Sampling(StrEnum):
    """Number of times that an epoch sees the images of each class."""

    UNIFORM = "uniform"
    BALANCED = "balanced"


class Loading(StrEnum):
    """Training images are decoded once, or for every batch."""

    AUTO = "auto"
    RESIDENT = "resident"
    STREAMING = "streaming"


class AutoAugment(StrEnum):
    """Augmentation by operations on pixels, drawn for each image."""

    RANDAUGMENT = "randaugment"
    TRIVIALAUGMENT = "trivialaugment"
    AUTOAUGMENT_IMAGENET = "autoaugment_imagenet"
    AUTOAUGMENT_CIFAR10 = "autoaugment_cifar10"
    AUTOAUGMENT_SVHN = "autoaugment_svhn"


class AugmentConfig(Config):
    """Augmentation of single training images, before any mixing."""

    crop_padding: int = Field(default=0, ge=0, le=MAX_IMAGE_SIDE)
    """Padding in pixels on each side before a random crop back to the image size; 0: no crop.
    4 is usual for 32 x 32 photographs."""

    padding_mode: PaddingMode = PaddingMode.ZERO
    """Content of the padding: zero (black) or reflect (the image mirrored at its border)."""

    resized_crop_scale: tuple[AreaFraction, AreaFraction] | None = Field(
        default=None, validate_default=True
    )
    """Random resized crop: smallest and largest fraction of the image's area that is kept and
    scaled to the image size; 0.08 and 1 are usual for ImageNet. Streamed images are cropped from
    the file at full resolution. Default: no such crop."""

    resized_crop_ratio: tuple[AspectRatio, AspectRatio] = DEFAULT_CROP_RATIO
    """Smallest and largest aspect ratio (width over height) of the random resized crop."""

    horizontal_flip: bool = False
    """Flip each image left to right with probability 0.5; leave off for digits and text."""

    auto_augment: AutoAugment | None = None
    """Operations on pixels, after crop and flip, as in torchvision: randaugment (several at one
    magnitude), trivialaugment (one at a random magnitude, the wide space), or the learned policies
    autoaugment_imagenet, autoaugment_cifar10 and autoaugment_svhn."""

    randaugment_ops: int | None = Field(default=None, ge=1, le=20)
    """Operations per image of randaugment. Default: 2."""

    randaugment_magnitude: int | None = Field(default=None, ge=0, le=30)
    """Magnitude of the operations of randaugment, of 30. Default: 9."""

    color_jitter: tuple[Strength, Strength, Strength, HueShift] | None = None
    """Largest change of brightness, contrast, saturation and hue, each drawn uniformly, in a random
    order, as torchvision's ColorJitter; [0.4, 0.4, 0.4, 0.1] is usual. The first three are
    fractions, the last is of the color circle."""

    random_erasing: float = Field(default=0.0, ge=0, le=1)
    """Probability of setting a rectangle of an image, 2% to 33% of its area, to the mean color, as
    torchvision's RandomErasing after normalization."""

    @property
    def changes_pixels(self) -> bool:
        """Whether there are operations on pixels."""
        return self.auto_augment is not None or self.color_jitter is not None

    # Validators see the fields declared above theirs. A setting without effect is refused, not
    # ignored: it is a mistake, and it would make two equal runs look different.
    @field_validator("resized_crop_scale")
    @classmethod
    def _crops_once(cls, scale: Pair | None, info: ValidationInfo) -> Pair | None:
        if scale is not None and info.data.get("crop_padding"):
            raise ValueError(
                f"expected nothing where crop_padding is above 0, got {_pair(scale)}: two crops "
                "of one image"
            )
        return None if scale is None else _ascending(scale)

    @field_validator("resized_crop_ratio")
    @classmethod
    def _ratio_has_effect(cls, ratio: Pair, info: ValidationInfo) -> Pair:
        # The empty tuple stands for a scale that is itself wrong.
        has_scale = info.data.get("resized_crop_scale", ()) is not None
        if ratio != DEFAULT_CROP_RATIO and not has_scale:
            raise ValueError(
                f"expected nothing where resized_crop_scale is not given, got {_pair(ratio)}"
            )
        return _ascending(ratio)

    @field_validator("randaugment_ops", "randaugment_magnitude")
    @classmethod
    def _belongs_to_randaugment(cls, value: int | None, info: ValidationInfo) -> int | None:
        policy = info.data.get("auto_augment", AutoAugment.RANDAUGMENT)
        if value is not None and policy is not AutoAugment.RANDAUGMENT:
            got = "not given" if policy is None else f"'{policy}'"
            raise ValueError(f"expected nothing where auto_augment is {got}, got {value}")
        return value

    @field_validator("padding_mode")
    @classmethod
    def _mode_has_effect(cls, mode: PaddingMode, info: ValidationInfo) -> PaddingMode:
        if mode is not PaddingMode.ZERO and info.data.get("crop_padding") == 0:
            raise ValueError(f"expected 'zero' where crop_padding is 0, got '{mode}'")
        return mode


class DataConfig(Config):
    """Source, splits, augmentation and storage of the images."""

    source: DataSource = DataSource.DIGITS
    """Dataset. digits: the 1,797 scans of 8 x 8 pixels that come with scikit-learn. folder: your
    own images as CLASS/IMAGE, from which all splits are cut; or as train/CLASS/IMAGE and
    test/CLASS/IMAGE, optionally val/CLASS/IMAGE. Other names are datasets of torchvision."""

    path: Path | None = Field(default=None, validate_default=True)
    """folder: the folder that contains one folder per class, or train/ and test/. torchvision
    datasets: their root folder in torchvision's layout (default: inside the cache folder). digits:
    none."""

    labels: Path | None = None
    """folder: a CSV with the labels of each image, of which it may have several: a column image,
    paths below the folder, and a column of 0 and 1 for each class, or one column labels of names.
    All splits are cut from its images, as fractions. Needs task.trainer.loss binary_cross_entropy.
    Default: the folder of an image is its class."""

    download: bool = Field(default=False, validate_default=True)
    """Download a torchvision dataset if its files are missing."""

    image_size: Side | tuple[Side, Side] | None = None
    """Height and width in pixels (one number: square). Images are scaled to cover this size, then
    center-cropped. Default: their own size, which must be the same for all."""

    labels_per_class: int | None = Field(default=None, ge=1)
    """Number of training images per class, to study scarce labels. Default: all."""

    reward_size: PartSize | None = None
    """Size of the reward split, held out from val/ if there is one, else from train/: a fraction
    below 1 of each class, or a number of images per class. Searches need it; 0: none.
    Default: 0.2 of the training images, or half of val/."""

    selection_size: PartSize | None = None
    """Size of the selection split, on which finished schedules are compared; same format and
    default as reward_size."""

    test_size: Annotated[PartSize, Field(gt=0)] | None = None
    """digits, and folders without test/: size of the test split that is cut from their images, a
    fraction below 1 of each class, or a number of images per class. Default: 0.2."""

    split_seed: int = Field(default=0, ge=0)
    """Random seed of the splits; independent of the seed of a training run."""

    sampling: Sampling = Sampling.UNIFORM
    """Images of an epoch. uniform: each once. balanced: as many of each class, those of a rare
    class several times and of a frequent one a part, each as often as the others of its class."""

    augment: AugmentConfig = AugmentConfig()
    """Augmentation of training images."""

    normalization: Normalization = Normalization.AUTO
    """Statistics for normalization. auto: train or, with task.model.weights of a network of
    torchvision or timm, all that the weights expect: mean and deviation, interpolation, and where
    it is not set image_size and, for streamed images, evaluation_crop. train: mean and standard
    deviation per channel of the training split. imagenet: the constants that most pretrained
    ImageNet models expect. none: values stay in [0, 1]."""

    mean: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    """Mean per channel, of values in [0, 1]; with std, instead of normalization."""

    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = Field(
        default=None, validate_default=True
    )
    """Standard deviation per channel; with mean."""

    interpolation: Interpolation | None = None
    """Filter that scales images. Default: bilinear, or that of the pretrained weights."""

    placement: Placement = Placement.AUTO
    """Memory that holds the images during training: device (that of the model), host (main memory),
    or auto: the device if they take at most half of its free memory."""

    loading: Loading = Field(default=Loading.AUTO, validate_default=True)
    """folder only. resident: decode all images once, at image_size. streaming: decode training
    images from their files for every batch, in worker processes; reward, selection and test images
    are still decoded once. auto: streaming if image_size is set and all decoded images would take
    more than half of the main memory."""

    loader_workers: int | None = Field(default=None, ge=0, le=1024)
    """Number of worker processes that decode streamed images; results do not depend on it. 0: the
    training process decodes. Default: one per CPU core available to this training run."""

    evaluation_crop: float = Field(default=1.0, gt=0, le=1)
    """Center crop of reward, selection and test images: fraction of the shorter side that is kept;
    with loading streaming only. 0.875 (224 of 256 pixels) is usual with resized_crop_scale."""

    cache: Path | None = None
    """Folder for decoded images and downloads. Default: the user's cache folder."""

    @property
    def target_size(self) -> tuple[int, int] | None:
        """Return the requested (height, width) in pixels; None keeps the size of the files."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        return self.image_size

    @property
    def cache_folder(self) -> Path:
        """Return the folder for decoded images and downloads; it may not exist yet."""
        if self.cache is not None:
            return self.cache.expanduser()
        return platformdirs.user_cache_path("automix") / "data"

    def part_sizes(self, *, has_val: bool) -> tuple[Size, Size]:
        """Return the sizes of (reward, selection), with defaults filled in."""
        # val/ has no other use, so that the two divide it; train/ is mostly for training.
        preset = _DEFAULT_FRACTION_OF_VAL if has_val else _DEFAULT_FRACTION
        return (
            preset if self.reward_size is None else self.reward_size,
            preset if self.selection_size is None else self.selection_size,
        )

    @property
    def test_part_size(self) -> Size:
        """Return the size of a test split that is cut from the only images there are."""
        return _DEFAULT_FRACTION if self.test_size is None else self.test_size

    # info.data lacks a field that is itself wrong: then that is the message, and no other is added.
    @field_validator("path")
    @classmethod
    def _path_fits_source(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        source = info.data.get("source")
        if source is DataSource.FOLDER and path is None:
            raise ValueError("expected a folder of images, got nothing")
        if source is DataSource.DIGITS and path is not None:
            raise ValueError(f"expected no path for the source 'digits', got '{path}'")
        return path

    @field_validator("std")
    @classmethod
    def _both_or_none(cls, std: Values | None, info: ValidationInfo) -> Values | None:
        mean = info.data.get("mean", std)
        if (mean is None) != (std is None) or len(mean or ()) != len(std or ()):
            raise ValueError(f"expected as many values as mean ({len(mean or ())}), got {std}")
        if std is not None and info.data.get("normalization") is not Normalization.AUTO:
            raise ValueError("expected nothing where normalization is given, got values")
        return std

    @field_validator("download")
    @classmethod
    def _download_has_effect(cls, download: bool, info: ValidationInfo) -> bool:
        source = info.data.get("source")
        if download and source in {DataSource.DIGITS, DataSource.FOLDER}:
            raise ValueError(f"expected false for the source '{source}', got true")
        return download

    @field_validator("loading")
    @classmethod
    def _can_stream(cls, loading: Loading, info: ValidationInfo) -> Loading:
        if loading is not Loading.STREAMING:
            return loading
        source = info.data.get("source")
        if source is not None and source is not DataSource.FOLDER:
            raise ValueError(f"expected no streaming of the source '{source}', got 'streaming'")
        if info.data.get("image_size", ()) is None:
            raise ValueError("expected data.image_size beside it, got 'streaming' alone")
        return loading

    @field_validator("loader_workers")
    @classmethod
    def _workers_have_work(cls, workers: int | None, info: ValidationInfo) -> int | None:
        loading, source = info.data.get("loading"), info.data.get("source")
        if workers is not None and loading is not None:
            if loading is Loading.RESIDENT:
                raise ValueError(f"expected nothing where loading is 'resident', got {workers}")
            if source is not None and source is not DataSource.FOLDER:
                raise ValueError(f"expected nothing for the source '{source}', got {workers}")
        return workers

    @field_validator("evaluation_crop")
    @classmethod
    def _crop_has_effect(cls, crop: float, info: ValidationInfo) -> float:
        loading = info.data.get("loading")
        if crop != 1 and loading is not None and loading is not Loading.STREAMING:
            raise ValueError(f"expected 1 where loading is '{loading}', got {crop:g}")
        return crop

    @field_validator("reward_size", "selection_size", "test_size")
    @classmethod
    def _fraction_or_count(cls, size: Size | None) -> Size | None:
        # YAML reads 20.0 as a float; 1.0 is one image per class, not all of them.
        if isinstance(size, float) and size >= 1:
            if not size.is_integer():
                raise ValueError(f"expected a fraction below 1 or a whole number, got {size}")
            return int(size)
        return size

    @model_validator(mode="after")
    def _fits_several_labels(self) -> Self:
        if self.labels is None:
            return self
        if self.source is not DataSource.FOLDER:
            raise ValueError(
                f"expected no labels for the source '{self.source}', got {self.labels}"
            )
        if self.loading is Loading.STREAMING:
            raise ValueError("expected loading resident with labels, got streaming")
        if self.sampling is Sampling.BALANCED or self.labels_per_class is not None:
            raise ValueError("expected no sampling balanced and no labels_per_class with labels")
        sizes = (self.reward_size, self.selection_size, self.test_size)
        if counts := [size for size in sizes if isinstance(size, int) and size > 0]:
            raise ValueError(f"expected sizes of splits below 1 with labels, got {counts[0]}")
        total = sum(self.part_sizes(has_val=False)) + self.test_part_size
        if total >= 1:
            raise ValueError(f"expected sizes of splits that sum to less than 1, got {total:g}")
        return self

    @field_validator("test_size")
    @classmethod
    def _test_size_has_effect(cls, size: Size | None, info: ValidationInfo) -> Size | None:
        source = info.data.get("source")
        # Whether a folder has test images shows when it is listed.
        has_none = source in {None, DataSource.DIGITS, DataSource.FOLDER}
        if size is not None and not has_none:
            raise ValueError(
                f"expected nothing for the source '{source}', which has test images, got {size}"
            )
        return size


def _ascending(pair: Pair) -> Pair:
    if pair[0] > pair[1]:
        raise ValueError(f"expected the smaller number first, got {_pair(pair)}")
    return pair


def _pair(values: Pair) -> str:
    return f"[{values[0]:g}, {values[1]:g}]"
