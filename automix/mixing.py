"""One step of mixing: whether a batch is mixed, and with which draws; used by every loop."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from automix.mixture import Decision, Mixture
from automix.operator_info import Operator
from automix.operators.comixup.energy import CoMixupWeights
from automix.operators.registry import OPERATORS
from automix.operators.types import BatchShape, MixedBatch
from automix.random_streams import Stream, derived_seed, stream_generator
from automix.saliency.sources import SaliencySource

if TYPE_CHECKING:
    # A loop of the user's has no configuration, and need not load what parses one.
    from automix.configuration.operators import OperatorOptions

_SEED_RANGE = 2.0**63
_Choice = TypeVar("_Choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepKey:
    """Names the draws of one step of one process: equal keys, equal draws."""

    seed: int
    # Of the optimizer, or of the micro-batch where a step has several.
    step: int
    # Of the process, among those that train together.
    rank: int = 0


def draw_decision(mixture: Mixture, key: StepKey) -> Decision | None:
    """Draw how the batch of a step is mixed; None if it stays as it is.

    Of a mixture of several decisions, all processes and all micro-batches of a step draw the same
    one; what they draw next, partners and lam, differs. With a single decision each of them draws
    for itself whether it mixes.
    """
    # On the host: a batch that is not mixed needs no saliency pass, and nothing has to be read back
    # from the device to know it.
    is_single = len(mixture.decisions) == 1
    if is_single and mixture.decisions[0].operator is Operator.NONE:
        return None
    # The operators take different times, and processes wait for the slowest at every step.
    rank = key.rank if is_single else 0
    draw = derived_seed(key.seed, Stream.MIXING_CHOICE, rank=rank, step=key.step)
    return mixture.draw(draw / _SEED_RANGE)


def mix_step(
    decision: Decision,
    images_BCHW: Tensor,
    targets: Tensor,
    *,
    key: StepKey,
    num_classes: int,
    model: nn.Module | None = None,
    saliency: SaliencySource | None = None,
    previous: MixedBatch | None = None,
    with_targets: bool = True,
    options: "OperatorOptions | None" = None,
) -> MixedBatch:
    """Mix the batch of a step as ``decision`` says, whatever its probability.

    ``model`` and ``saliency`` are for operators that read saliency, ``previous``, the last mixed
    batch, for those that mix with it. Without ``with_targets``, the soft targets of operators that
    mix pairs have no columns: the classes, ``partner`` and ``lam`` say the same. ``options`` are
    those of a recipe, where they are not the defaults, with a patch size in pixels.

    Raises:
        ValueError: the operator needs saliency, and there is no model or no source.
    """
    spec = OPERATORS[decision.operator]
    # What the operator needs beside images and labels, and nothing else.
    needed: dict[str, Any] = {}
    if spec.facts.needs_saliency:
        if model is None or saliency is None:
            raise ValueError(
                f"expected a model and a saliency source for {decision.operator.value}, got none"
            )
        needed["saliency_BHW"] = saliency(model, images_BCHW.detach(), targets).detach()
    if spec.facts.needs_previous:
        needed["previous"] = previous
    generator = _mixing_generator(key, images_BCHW.device)
    shape = BatchShape(len(images_BCHW), images_BCHW.shape[-2], images_BCHW.shape[-1])
    drawing: dict[str, Any] = {}
    if options is not None and options.changes(decision.operator):
        drawing, applying = _keywords(decision.operator, options, key)
        needed |= applying
    if spec.facts.mixes_pairs and not with_targets:
        targets, num_classes = images_BCHW.new_empty((shape.batch, 0), dtype=torch.float32), 0
    # Of images or targets that are learned (a front end before the mix) the gradient goes through.
    wants_gradient = images_BCHW.requires_grad or targets.requires_grad
    with torch.set_grad_enabled(wants_gradient and torch.is_grad_enabled()):
        draws = spec.draw(shape, strength=decision.strength, generator=generator, **drawing)
        return spec.function(images_BCHW, targets, draws, num_classes=num_classes, **needed)


def _keywords(
    operator: Operator, options: "OperatorOptions", key: StepKey
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the options mean to the two halves of an operator: drawing and applying."""
    if operator is Operator.RMIX:
        return {"per": options.rmix.per}, {"grid": draw_choice(options.rmix.grids, key)}
    if operator is not Operator.COMIXUP:
        align = {"align": options.patch_size}
        # Their rectangles follow from the saliency, or from draws for an image of any size.
        is_applied = operator in (Operator.SALIENCYMIX, Operator.GRIDMIX)
        return ({}, align) if is_applied else (align, {})
    weights = CoMixupWeights(peak_window=options.comixup.peak_window)
    return {}, {
        "weights": weights,
        "group": options.comixup.group,
        "most_inputs": options.comixup.most_inputs,
    }


def draw_choice(choices: Sequence[_Choice], key: StepKey) -> _Choice:
    """Draw one of a few choices for a batch: the grid of R-Mix, the layer of Manifold Mixup."""
    # On the host: a grid is a shape, a layer is code. A draw of its own, which no other uses.
    number = derived_seed(key.seed, Stream.MIXING, rank=key.rank, epoch=1, step=key.step)
    return choices[number % len(choices)]


# Their draws have one row per image, and what becomes of an image depends on its partner alone.
# The others pair or group the images of a batch, or mix with the batch before.
IMAGEWISE_OPERATORS = frozenset(
    {
        Operator.MIXUP,
        Operator.CUTMIX,
        Operator.RESIZEMIX,
        Operator.FMIX,
        Operator.GRIDMIX,
        Operator.SALIENCYMIX,
        Operator.RMIX,
        Operator.SALIENCY_GRAFTING,
        Operator.BERNOULLI_GRAFTING,
        Operator.MANIFOLD_MIXUP,
    }
)


@torch.no_grad()
def mix_steps(
    decisions: Sequence[Decision],
    images: Sequence[Tensor],
    *,
    keys: Sequence[StepKey],
    maps_BHW: Sequence[Tensor] | None = None,
) -> list[MixedBatch]:
    """Return what `mix_step` returns for several batches, from one call of their operator.

    Without targets: the classes of the images, ``partner`` and ``lam`` say the same.

    The decisions, one per batch, name the same operator of `IMAGEWISE_OPERATORS`; the batches are
    of one shape. ``maps_BHW`` are the saliency maps of each, where the operator needs them.
    """
    spec = OPERATORS[decisions[0].operator]
    size, _, height, width = images[0].shape
    shape, device = BatchShape(size, height, width), images[0].device
    draws = [
        spec.draw(shape, strength=decision.strength, generator=_mixing_generator(key, device))
        for decision, key in zip(decisions, keys, strict=True)
    ]
    # Partners are numbered within a batch; in the joined one those of batch i come i B later.
    first_N1 = torch.arange(0, size * len(draws), size, device=device)[:, None]
    joined = type(draws[0])._make(map(torch.cat, zip(*draws, strict=True)))
    joined = joined._replace(partner=(joined.partner.view(-1, size) + first_N1).flatten())
    needed = {"saliency_BHW": torch.cat(list(maps_BHW))} if maps_BHW is not None else {}
    images_BCHW = torch.cat(list(images))
    no_targets = images_BCHW.new_empty((len(images_BCHW), 0), dtype=torch.float32)
    mixed = spec.function(images_BCHW, no_targets, joined, num_classes=0, **needed)
    fields = {name: _rows(value, len(draws)) for name, value in tensors_of(mixed).items()}
    fields["partner"] = list((mixed.partner.view(-1, size) - first_N1).unbind())
    return [
        batch_from_tensors({name: rows[index] for name, rows in fields.items()})
        for index in range(len(draws))
    ]


def _rows(value: Tensor | None, count: int) -> Sequence[Tensor | None]:
    return [None] * count if value is None else value.chunk(count)


def _mixing_generator(key: StepKey, device: torch.device) -> torch.Generator:
    return stream_generator(key.seed, Stream.MIXING, rank=key.rank, step=key.step, device=device)


def tensors_of(batch: MixedBatch) -> dict[str, Tensor | None]:
    """Return the fields of a mixed batch for a checkpoint, without copying them."""
    return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}


def batch_from_tensors(
    tensors: Mapping[str, Tensor | None], *, device: torch.device | None = None
) -> MixedBatch:
    """Return the batch that `tensors_of` was given, moved to ``device`` if there is one."""
    moved = {name: value if value is None else value.to(device) for name, value in tensors.items()}
    return MixedBatch(**moved)  # type: ignore[arg-type]
