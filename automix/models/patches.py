"""Patches of a vision transformer, and options of operators in their pixels."""

from torch import nn

from automix.configuration.operators import OperatorOptions
from automix.errors import ConfigError

_FIELD = "task.operators.patch_size"


def options_for(
    options: OperatorOptions, model: nn.Module, *, image_size: tuple[int, int]
) -> OperatorOptions:
    """Return options whose patch size, if there is one, is in pixels.

    Raises:
        ConfigError: the network cuts no patches, or they do not divide the images.
    """
    side = options.patch_size
    if side is None:
        return options
    if side == "network":
        side = patch_side(model)
        if side is None:
            raise ConfigError(
                f"{_FIELD}: expected a number of pixels for a network whose first convolution cuts "
                "no square patches, got 'network'"
            )
    if image_size[0] % side or image_size[1] % side:
        raise ConfigError(
            f"{_FIELD}: expected a divisor of {image_size[0]} x {image_size[1]} pixels, got {side}"
        )
    return options.model_copy(update={"patch_size": side})


def patch_side(model: nn.Module) -> int | None:
    """Return the side of the patches in pixels, of a convolution that moves by its own size.

    Examples:
        >>> patch_side(nn.Sequential(nn.Conv2d(3, 8, 16, stride=16), nn.Conv2d(8, 8, 3)))
        16
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            side = module.kernel_size[0]
            is_patch = module.kernel_size == module.stride == (side, side)
            return side if is_patch and side > 1 and module.padding in ((0, 0), "valid") else None
    return None
