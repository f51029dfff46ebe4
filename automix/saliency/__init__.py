"""TEMP."""
from typing import Protocol
import torch
from torch import Tensor, nn
class SaliencySource(Protocol):
    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor: ...
class InputGradient:
    def __call__(self, model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        x = images.detach().requires_grad_()
        model.eval()
        loss = nn.functional.cross_entropy(model(x), targets)
        (g,) = torch.autograd.grad(loss, x)
        model.train()
        s = g.square().mean(1).sqrt()
        return s / s.sum((1, 2), keepdim=True).clamp_min(1e-20)
