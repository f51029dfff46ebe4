"""From the tokens of a vision transformer to the grid of patches that they are of.

Shape suffixes: B batch, H rows, W columns, N tokens, D features.
"""

from torch import Tensor

# A class token, distillation, a few registers or prompts.
_MOST_OTHERS = 16


def token_grid(num_tokens: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the patches of an image among ``num_tokens`` tokens.

    Patches are square and the last tokens; up to 16 others (class token, registers) come before
    them. Of several grids, the finest whose patches cover the image exactly, or nearly so.

    Raises:
        ValueError: no grid has about as many patches.

    Examples:
        >>> token_grid(197, 224, 224), token_grid(261, 224, 224), token_grid(33, 32, 16)
        ((14, 14), (16, 16), (8, 4))
    """
    sides = range(1, min(height, width) + 1)
    exact = [side for side in sides if height % side == 0 and width % side == 0]
    for candidates in (exact, sides):
        # From the finest grid: the smallest number of tokens that are no patches.
        for side in candidates:
            rows, columns = height // side, width // side
            if 0 <= num_tokens - rows * columns <= _MOST_OTHERS:
                return rows, columns
    raise ValueError(
        f"saliency: expected tokens of a grid of patches of {height} x {width} pixels, got "
        f"{num_tokens} tokens"
    )


def patch_map(scores_BN: Tensor, height: int, width: int) -> Tensor:
    """Return scores of tokens as maps of the patches, (B, rows, columns)."""
    rows, columns = token_grid(scores_BN.shape[1], height, width)
    return scores_BN[:, -rows * columns :].reshape(-1, rows, columns)


def class_attention(attention_BNN: Tensor, height: int, width: int) -> Tensor:
    """Return the attention of the class token to the patches, (B, rows, columns).

    Of a network without tokens beside the patches, the mean attention of all of them.
    """
    rows, columns = token_grid(attention_BNN.shape[1], height, width)
    has_class_token = attention_BNN.shape[1] > rows * columns
    scores_BN = attention_BNN[:, 0] if has_class_token else attention_BNN.mean(dim=1)
    return patch_map(scores_BN, height, width)
