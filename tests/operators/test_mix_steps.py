"""Several batches mixed by one call of their operator: what each is mixed to alone."""

import pytest
import torch

from automix.mixing import IMAGEWISE_OPERATORS, StepKey, mix_step, mix_steps, tensors_of
from automix.operator_info import OPERATOR_FACTS, Operator
from automix.schedule import Decision

SHAPE = (6, 3, 12, 10)


@pytest.mark.parametrize("is_last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("operator", sorted(IMAGEWISE_OPERATORS))
def test_every_batch_is_mixed_as_it_is_alone(operator: Operator, is_last: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = OPERATOR_FACTS[operator].strength.levels
    decisions = [Decision(operator=operator, strength=levels[i % len(levels)]) for i in range(3)]
    images = [torch.rand(SHAPE, generator=generator) for _ in decisions]
    if is_last:
        images = [batch.contiguous(memory_format=torch.channels_last) for batch in images]
    labels = [torch.randint(5, SHAPE[:1], generator=generator) for _ in decisions]
    maps = [torch.rand(SHAPE[0], *SHAPE[2:], generator=generator) for _ in decisions]
    keys = [StepKey(seed=seed, step=7) for seed in range(3)]
    needs_maps = OPERATOR_FACTS[operator].needs_saliency
    joined = mix_steps(decisions, images, keys=keys, maps_BHW=maps if needs_maps else None)
    for index, decision in enumerate(decisions):
        alone = mix_step(
            decision,
            images[index],
            labels[index],
            key=keys[index],
            num_classes=5,
            with_targets=False,
            model=torch.nn.Identity(),
            saliency=lambda *_, index=index: maps[index],
        )
        member = tensors_of(joined[index])
        for name, value in tensors_of(alone).items():
            torch.testing.assert_close(member[name], value, rtol=0, atol=1e-6, msg=name)
        assert torch.equal(joined[index].partner, alone.partner)
