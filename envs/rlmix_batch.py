"""The batch in hand of the RL-Mix environment: seen, mixed by percentiles, trained on.

Everything stays on the device. Shape suffixes: B batch, C channels, H rows, W columns, P cells per
side, K classes.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from automix.operators.cells import enlarge_cells
from automix.operators.rmix import RMixDraws, apply_rmix, draw_rmix
from automix.operators.types import BatchShape, MixedBatch
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.saliency.isolation import raw_module
from automix.saliency.maps import normalised
from automix.schedule import Decision
from automix.training.feeding import FedBatch
from automix.training.trainer import ClassifierTrainer
from automix.vocabulary import Operator
from envs.rlmix_config import RLMixConfig
from envs.similarity import (
    batch_similarity,
    gradient_cells,
    image_similarity,
    outputs_of,
    pooled_magnitude,
)

NUM_PERCENTILES = 10
_PERCENTILE_STEP = 0.11
LOWEST_LOG = -16.0
"""Log-probabilities below this are observed as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBatch:
    """A clean batch, what the network makes of it, and what is drawn for its mixing.

    Attributes:
        fed: the batch.
        cells: (B, P, P) magnitude of the gradient, not normalised.
        logits: (B, K).
        draws: partners and weights; the percentiles are up to the agent.
        grid: cells along a side of the grid that is mixed on.
    """

    fed: FedBatch
    cells: Tensor
    logits: Tensor
    draws: RMixDraws
    grid: int


def see(trainer: ClassifierTrainer, config: RLMixConfig) -> SeenBatch:
    """Return the next batch of a training; one pass, of which nothing remains in the network."""
    fed = trainer.fed_batch(Decision(operator=Operator.NONE))
    trainer.model.train()
    cells_BPP, logits_BK = gradient_cells(
        trainer.model, fed.images, fed.labels, cells=config.cells, layer=config.layer
    )
    key, images = fed.key, fed.images
    generator = stream_generator(
        key.seed, Stream.MIXING, rank=key.rank, step=key.step, device=images.device
    )
    shape = BatchShape(len(images), images.shape[2], images.shape[3])
    draws = draw_rmix(shape, strength=config.strength, generator=generator, per="batch")
    # On the host: what is drawn on the device would have to be waited for.
    choice = derived_seed(key.seed, Stream.MIXING_CHOICE, rank=key.rank, step=key.step)
    grid = config.grids[choice % len(config.grids)]
    return SeenBatch(fed=fed, cells=cells_BPP, logits=logits_BK, draws=draws, grid=grid)


def observed(seen: SeenBatch, config: RLMixConfig) -> dict[str, Tensor]:
    """Return what the agent sees of a batch: float32 tensors within the space of observations."""
    maps_BPP = normalised(seen.cells).clamp(0, 1)
    logs_BK = seen.logits.log_softmax(dim=1).nan_to_num(LOWEST_LOG)
    found = {"saliency": maps_BPP, "logits": logs_BK.clamp(LOWEST_LOG, 0)}
    if config.observe_draws:
        found["partner_saliency"] = maps_BPP[seen.draws.partner]
        found["lam"] = seen.draws.lam
        found["grid"] = torch.full((1,), float(seen.grid), device=maps_BPP.device)
    return found


def mix(seen: SeenBatch, levels_B: Tensor) -> MixedBatch:
    """Mix a batch; cells at or above the percentile of their image are salient.

    Args:
        seen: the batch.
        levels_B: (B,) int64, index of each image's percentile: 0, 0.11, ... 0.99.
    """
    images = seen.fed.images
    size = (images.shape[2], images.shape[3])
    with torch.no_grad():
        return apply_rmix(
            images,
            seen.fed.targets,
            seen.draws._replace(percentile=levels_B * _PERCENTILE_STEP),
            saliency_BHW=enlarge_cells(seen.cells, size).squeeze(1),
            grid=seen.grid,
        )


def train_on(
    trainer: ClassifierTrainer, seen: SeenBatch, mixed: MixedBatch, config: RLMixConfig
) -> tuple[Tensor, Tensor]:
    """Do one training step on the mixed batch.

    Returns:
        The loss, and the similarity of the gradients of the clean and the mixed batch (0 if it is
        not paid), scalars on the device. The gradient with respect to the mixed images comes from
        the training step itself; the weights are the same for both.
    """
    fed = dataclasses.replace(seen.fed, images=mixed.images, targets=mixed.targets, is_mixed=True)
    if config.reward == "validation_gain":
        loss = trainer.train_on(fed)
        return loss, torch.zeros_like(loss)
    if config.layer is None:
        images = mixed.images.detach().requires_grad_()
        loss = trainer.train_on(dataclasses.replace(fed, images=images))
        gradient = images.grad
    else:
        with outputs_of(raw_module(trainer.model), config.layer, cut=False) as outputs:
            loss = trainer.train_on(fed)
        gradient = outputs[-1].grad
    assert gradient is not None
    cells_BPP = pooled_magnitude(gradient.float(), cells=config.cells)
    if config.reward == "gradient_similarity":
        return loss, batch_similarity(seen.cells, cells_BPP)
    return loss, image_similarity(seen.cells, cells_BPP).mean()
