"""Attention rollout and gradients at tokens, against plain loops over what the layers compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from automix.operator_info import Statistics
from automix.saliency.attention import AttentionRecorder, attention_rollout, rolled_out
from automix.saliency.gradient import input_gradient, layer_gradient
from automix.saliency.tokens import class_attention, patch_map, token_grid

timm = pytest.importorskip("timm", reason="needs the extra timm")

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
LABELS = torch.arange(3)


def vit(**options: Any) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 3, "num_heads": 3}
    torch.manual_seed(4)
    network: nn.Module = timm.models.vision_transformer.VisionTransformer(
        num_classes=5, **(sizes | options)
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


@contextmanager
def attention_of_blocks(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect (B, heads, N, N) where timm computes it, without its fused function."""
    collected: list[Tensor] = []
    handles = []
    blocks: Any = network.blocks
    for block in blocks:
        block.attn.fused_attn = False

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            collected.append(inputs[0].detach())

        handles.append(block.attn.attn_drop.register_forward_pre_hook(keep))
    yield collected
    for handle in handles:
        handle.remove()
    for block in blocks:
        block.attn.fused_attn = True


def slow_rollout(layers: list[Tensor], image: int) -> Tensor:
    """Follow the attention of one image, head by head and row by row: (N, N)."""
    size = layers[0].shape[2]
    result = torch.eye(size)
    for layer in layers:
        step = torch.zeros(size, size)
        for head in layer[image]:
            for row in range(size):
                step[row] += head[row] / len(layer[image])
        for row in range(size):
            step[row, row] += 1
            step[row] /= step[row].sum()
        result = torch.stack([(step[row][:, None] * result).sum(dim=0) for row in range(size)])
    return result


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({}, 1),
        ({"class_token": False, "global_pool": "avg"}, 0),
        ({"reg_tokens": 4}, 5),
        ({"qk_norm": True}, 1),
    ],
    ids=["class token", "mean of patches", "registers", "normalized queries"],
)
def test_the_map_is_that_of_a_plain_loop(options: dict[str, Any], others: int) -> None:
    network = vit(**options).eval()
    with attention_of_blocks(network) as layers:
        network(IMAGES)
    maps = attention_rollout(network, IMAGES, LABELS)
    assert maps.shape == (3, 16, 16)
    torch.testing.assert_close(maps.sum(dim=(1, 2)), torch.ones(3))
    for image in range(3):
        rollout = slow_rollout(layers, image)
        scores = rollout[0, others:] if others else rollout.mean(dim=0)
        patches = scores.reshape(1, 4, 4) / scores.sum()
        expected = nn.functional.interpolate(
            patches[None], size=(16, 16), mode="bilinear", antialias=True
        )[0, 0]
        torch.testing.assert_close(maps[image], expected / expected.sum(), rtol=1e-4, atol=1e-6)


def test_every_way_to_compute_attention_is_overheard() -> None:
    network = vit().eval()
    fused = attention_rollout(network, IMAGES, LABELS)
    with attention_of_blocks(network):
        torch.testing.assert_close(attention_rollout(network, IMAGES, LABELS), fused)


def test_the_network_of_torchvision_is_overheard() -> None:
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=8
    )
    for mode in (True, False):
        network.train(mode)
        plain = network(IMAGES)
        with AttentionRecorder(3) as recorder:
            heard = network(IMAGES)
        assert [tuple(layer.shape) for layer in recorder.layers] == [(3, 17, 17)] * 2
        torch.testing.assert_close(heard, plain)
    assert attention_rollout(network, IMAGES, LABELS).shape == (3, 16, 16)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_network_of_transformers_is_overheard(implementation: str) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=8, image_size=16, patch_size=4, num_labels=3
    )
    config._attn_implementation = implementation
    network = transformers.ViTForImageClassification(config).eval()
    with AttentionRecorder(3) as recorder:
        network(IMAGES)
    network.set_attn_implementation("eager")
    expected = network(IMAGES, output_attentions=True).attentions
    assert len(recorder.layers) == len(expected) == 2
    for heard, attention in zip(recorder.layers, expected, strict=True):
        torch.testing.assert_close(heard, attention.mean(dim=1).detach())


def test_the_last_layer_alone_may_be_kept() -> None:
    network = vit().eval()
    with AttentionRecorder(3) as every:
        network(IMAGES)
    with AttentionRecorder(3, last_only=True) as last:
        network(IMAGES)
    assert len(every.layers) == 3
    torch.testing.assert_close(last.last_layer(), every.layers[-1])
    torch.testing.assert_close(every.last_layer(), every.layers[-1])
    with AttentionRecorder(3, last_only=True) as none:
        tokens = torch.rand(1, 2, 4, 5)
        nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
    with pytest.raises(ValueError, match="attention among all tokens of an image, got none"):
        none.last_layer()


def test_a_network_without_attention_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match=r"^saliency: expected a network with attention among all"):
        attention_rollout(network, IMAGES, LABELS)
    with pytest.raises(ValueError, match="got none"):
        rolled_out([])


def test_a_pass_leaves_no_trace() -> None:
    network = vit(drop_path_rate=0.5, proj_drop_rate=0.5).train()
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in network.state_dict().items()}
    first = attention_rollout(network, IMAGES, LABELS, statistics=Statistics.RUNNING)
    assert torch.equal(first, attention_rollout(network, IMAGES, LABELS))
    assert torch.get_rng_state().equal(state)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weights.grad is None and weights.requires_grad for weights in network.parameters())


@pytest.mark.parametrize("others", [0, 1, 5])
def test_the_gradient_at_tokens_is_that_of_the_patches(others: int) -> None:
    options: dict[int, dict[str, Any]] = {
        0: {"class_token": False, "global_pool": "avg"},
        1: {},
        5: {"reg_tokens": 4},
    }
    network = vit(**options[others]).eval()
    maps = layer_gradient(network, IMAGES, LABELS, layer="blocks.0")
    assert maps.shape == (3, 16, 16)
    tokens: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        tokens.append(output.detach().requires_grad_())
        return tokens[0]

    blocks: Any = network.blocks
    handle = blocks[0].register_forward_hook(keep)
    loss = nn.functional.cross_entropy(network(IMAGES), LABELS, reduction="sum")
    torch.autograd.backward(loss)
    handle.remove()
    gradient = tokens[0].grad
    assert gradient is not None
    assert gradient.shape == (3, 16 + others, 12)
    # The average of a patch of the enlarged map is near that of the patch itself.
    norms = gradient[:, others:].norm(dim=2).reshape(3, 4, 4)
    enlarged = nn.functional.interpolate(
        norms[:, None], size=(16, 16), mode="bilinear", antialias=True
    )[:, 0]
    expected = enlarged / enlarged.sum(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-7)
    assert input_gradient(network, IMAGES, LABELS).shape == maps.shape


@pytest.mark.parametrize(
    ("tokens", "size", "grid"),
    [
        (197, (224, 224), (14, 14)),
        (198, (224, 224), (14, 14)),
        (1374, (518, 518), (37, 37)),
        (17, (16, 16), (4, 4)),
        (64, (32, 32), (8, 8)),
        (33, (32, 16), (8, 4)),
        (50, (225, 225), (7, 7)),
    ],
)
def test_the_grid_of_known_networks(
    tokens: int, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert token_grid(tokens, *size) == grid
    scores = torch.arange(tokens, dtype=torch.float32)[None]
    assert patch_map(scores, *size).shape == (1, *grid)
    assert patch_map(scores, *size)[0, -1, -1] == tokens - 1


def test_tokens_of_no_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^saliency: expected tokens of a grid of patches of 32"):
        token_grid(600, 32, 16)
    attention = torch.eye(5).expand(2, 5, 5)
    assert class_attention(attention, 4, 4).shape == (2, 2, 2)
