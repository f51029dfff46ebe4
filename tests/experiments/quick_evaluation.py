"""An evaluation of every task in about a second."""

from pathlib import Path

from automix.experiments.evaluate.config import AttacksConfig, EvaluateConfig

QUICK = EvaluateConfig(attacks=AttacksConfig(steps=2, restarts=1, images=12))


def every_task(boxes: Path, trained: Path) -> EvaluateConfig:
    """Return the configuration of all tasks; maps are compared with those of ``trained``."""
    attribution = QUICK.attribution.model_copy(update={"runs": (trained,)})
    return QUICK.model_copy(update={"boxes": boxes, "attribution": attribution})
