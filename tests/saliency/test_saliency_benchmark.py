import json
from pathlib import Path

import pytest
import torch

from automix.configuration.task import ModelConfig
from benchmarks.saliency import Options, main


@pytest.mark.slow
def test_table_and_figures_on_the_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    options = Options(
        model=ModelConfig(name="preact_resnet18", width=2),
        batch_size=16,
        rounds=1,
        train_steps=3,
        num_batches=1,
        ages=(2,),
        layers=("stage2",),
        state=tmp_path / "network.pt",
        json=tmp_path / "saliency.json",
    )
    main(options)
    assert "3 of 3 steps" in capsys.readouterr().out
    rows = {
        row["name"]: row for row in json.loads((tmp_path / "saliency.json").read_text())["rows"]
    }
    assert rows["input_gradient"]["agreement"] == [1.0, 1.0]
    every = rows["input_gradient, refreshed every 4 steps"]
    assert every["step_fraction"] == pytest.approx(rows["input_gradient"]["step_fraction"] / 4)
    assert 0 < every["agreement"][0] <= 1
    assert rows["map after 2 steps on other images"]["step_fraction"] is None
    main(options)  # the network is there already
    assert "3 of 3 steps" not in capsys.readouterr().out
