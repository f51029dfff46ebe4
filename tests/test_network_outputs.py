"""Logits and auxiliary logits of every kind of output."""

import pytest
import torch
from torch import nn
from torchvision.models import GoogLeNetOutputs, InceptionOutputs

from automix.network_outputs import logits_of, read_output
from tests.models import users_networks
from tests.models.users_networks import Tiny

LOGITS, AUXILIARY = torch.zeros(2, 3), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("output", "auxiliary"),
    [
        (LOGITS, 0),
        (InceptionOutputs(LOGITS, AUXILIARY), 1),
        (InceptionOutputs(LOGITS, None), 0),
        (GoogLeNetOutputs(LOGITS, AUXILIARY, AUXILIARY), 2),
        ((LOGITS, AUXILIARY), 1),
        ([LOGITS, torch.ones(2, 7), (AUXILIARY,)], 0),
        ({"logits": LOGITS, "aux": AUXILIARY, "hidden": AUXILIARY}, 1),
        (users_networks.Answer(LOGITS, torch.ones(2, 3), AUXILIARY), 1),
    ],
)
def test_auxiliary_logits_are_found_beside_the_logits(output: object, auxiliary: int) -> None:
    result = read_output(output)
    assert result.logits is LOGITS
    assert len(result.auxiliary) == auxiliary
    assert all(value is AUXILIARY for value in result.auxiliary)


def test_an_answer_of_transformers_is_understood() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    answer = transformers.modeling_outputs.ImageClassifierOutput(logits=LOGITS, loss=None)
    result = read_output(answer)
    assert result.logits is LOGITS
    assert result.auxiliary == ()


@pytest.mark.parametrize("kind", ["tuple", "mapping", "dataclass", "inception"])
def test_every_kind_has_the_logits_of_the_plain_network(kind: str) -> None:
    network, images = Tiny(5, kind=kind), torch.rand(2, 1, 8, 8)
    plain = Tiny(5)
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(logits_of(network(images)), plain(images))


def test_features_alone_are_refused() -> None:
    network: nn.Module = users_networks.only_features(3, 1)
    with pytest.raises(TypeError, match="got dict with features"):
        logits_of(network(torch.rand(2, 1, 8, 8)))
