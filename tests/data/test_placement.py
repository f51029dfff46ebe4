"""The choice of where images are held is made, said and can be forced."""

import logging

import pytest
import torch

from automix.configuration.data import Placement
from automix.data.load import holding_device


def place(num_bytes: int, placement: Placement, device: str = "meta") -> str:
    return holding_device(num_bytes, device=device, placement=placement).type


@pytest.fixture
def free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "get_memory_info", lambda _: (1000, 2000))


@pytest.mark.usefixtures("free_memory")
def test_auto_takes_half_of_the_free_memory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert place(500, Placement.AUTO) == "meta"
    assert "are held on meta: at most half of" in caplog.text
    assert place(501, Placement.AUTO) == "cpu"
    assert "are held on cpu: more than half of" in caplog.text


@pytest.mark.usefixtures("free_memory")
def test_the_choice_can_be_forced() -> None:
    assert place(10**6, Placement.DEVICE) == "meta"
    assert place(1, Placement.HOST) == "cpu"


@pytest.mark.parametrize("placement", Placement)
def test_a_model_in_main_memory_has_its_images_there(placement: Placement) -> None:
    assert place(10**15, placement, device="cpu") == "cpu"


def test_an_accelerator_that_tells_nothing_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: torch.device) -> tuple[int, int]:
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.accelerator, "get_memory_info", silent)
    assert place(1, Placement.AUTO) == "cpu"
