"""Attention among the tokens of a vision transformer, as saliency and as weights of labels.

Nothing about a network has to be known: while a block runs, the functions that compute attention
are overheard (`torch.overrides.TorchFunctionMode`), whichever library calls them.

Shape suffixes: B batch, C channels, H rows, W columns, N tokens, P patches.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from automix.operator_info import Statistics
from automix.saliency.gradient import normalized, pass_dtype, raw_module, resized, without_trace
from automix.saliency.tokens import class_attention

_ARGUMENTS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)
_NO_ATTENTION = "saliency: expected a network with attention among all tokens of an image, got none"


class AttentionRecorder(TorchFunctionMode):
    """Keeps the attention of every layer that runs in its block, averaged over the heads.

    Overheard are ``F.scaled_dot_product_attention``, ``nn.MultiheadAttention``, and a softmax of
    (B, heads, N, N). Windows of an image, and attention between other things, are left out.

    Attributes:
        layers: (B, N, N) each, rows sum to 1, without history, in the order of the layers. With
            ``last_only`` there is at most one, and `last_layer` has it.
    """

    def __init__(self, batch: int, *, last_only: bool = False) -> None:
        super().__init__()
        self.layers: list[Tensor] = []
        self._batch = batch
        self._last_only = last_only
        # Of a fused function, whose weights take a pass of their own: the last one, not yet taken.
        self._pending: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, and keep the attention in it, if there is any."""
        options = dict(kwargs or {})
        if func is F.multi_head_attention_forward:
            gives_weights = options.pop("need_weights", True)
            options.pop("average_attn_weights", None)
            output, weights = func(*args, **options, need_weights=True, average_attn_weights=True)
            self._keep(weights)
            return output, weights if gives_weights else None
        result = func(*args, **options)
        if func is F.scaled_dot_product_attention:
            self._keep_of_call(args, options)
        elif func in _SOFTMAX and isinstance(result, Tensor) and result.ndim == 4:
            self._keep(result.detach().mean(dim=1))
        return result

    def last_layer(self) -> Tensor:
        """Return the attention of the last layer, (B, N, N).

        Raises:
            ValueError: there was none among all tokens of an image.
        """
        if self._pending is not None:
            call, self._pending = self._pending, None
            self._keep(_weights_of(*call))
        if not self.layers:
            raise ValueError(_NO_ATTENTION)
        return self.layers[-1]

    def _keep_of_call(self, args: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        query, key = (args[i] if i < len(args) else options[_ARGUMENTS[i]] for i in (0, 1))
        if query.ndim != 4 or query.shape[-2] != key.shape[-2]:
            return
        if not self._last_only:
            self._keep(_weights_of(args, options))
        elif self._is_of_tokens(query.shape[0], query.shape[-2]):
            self._pending = (args, options)

    def _keep(self, weights: Tensor | None) -> None:
        if weights is None or weights.ndim != 3 or weights.shape[1] != weights.shape[2]:
            return
        if self._is_of_tokens(weights.shape[0], weights.shape[1]):
            if self._last_only:
                self.layers.clear()
                self._pending = None
            self.layers.append(weights.detach().float())

    def _is_of_tokens(self, batch: int, tokens: int) -> bool:
        return batch == self._batch and tokens > 1


@torch.no_grad()
def _weights_of(args: tuple[Any, ...], options: Mapping[str, Any]) -> Tensor:
    """Return the weights of a call of ``F.scaled_dot_product_attention``, without its dropout."""
    call = dict(zip(_ARGUMENTS, args, strict=False)) | dict(options)
    key = call["key"]
    # Weights times the identity: mask, scale and groups of heads are the function's own.
    call["value"] = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand(
        *key.shape[:-1], -1
    )
    call["dropout_p"] = 0.0
    weights: Tensor = F.scaled_dot_product_attention(**call)
    return weights.mean(dim=1)


def attention_rollout(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    statistics: Statistics = Statistics.BATCH,
) -> Tensor:
    """Return the attention of the class token to the patches, followed through all layers.

    Attention rollout (Abnar and Zuidema, https://arxiv.org/abs/2005.00928): with A_l the attention
    of layer l, averaged over its heads, and I for the residual connection, R is the product of all
    (A_l + I) / 2. The map is the row of R of the class token; of a network without one, the mean
    over all rows. A forward pass without gradients; ``targets`` are not looked at.

    Maps and the other arguments are those of `automix.saliency.gradient.input_gradient`.

    Raises:
        ValueError: the network has no attention among all tokens of an image, or its tokens are no
            grid of patches.
    """
    raw = raw_module(model)
    height, width = images_BCHW.shape[2:]
    with without_trace(raw, device=images_BCHW.device, statistics=statistics), torch.no_grad():
        recorder = AttentionRecorder(len(images_BCHW))
        with recorder:
            raw(images_BCHW.detach().to(pass_dtype(raw)))
    maps_BPP = class_attention(rolled_out(recorder.layers), height, width)
    return normalized(resized(maps_BPP, height, width))


def rolled_out(layers: Sequence[Tensor]) -> Tensor:
    """Return how much each token draws on each other, (B, N, N), after all layers with its tokens.

    Raises:
        ValueError: there are no layers.
    """
    if not layers:
        raise ValueError(_NO_ATTENTION)
    # A layer that pools or adds tokens begins a new stage: what is rolled out is the last one.
    last = [layer for layer in layers if layer.shape == layers[-1].shape]
    rollout: Tensor | None = None
    for attention_BNN in last:
        # A x + x, as rows that sum to 1.
        step = (attention_BNN + torch.eye(attention_BNN.shape[1], device=attention_BNN.device)) / 2
        rollout = step if rollout is None else step @ rollout
    assert rollout is not None
    return rollout
