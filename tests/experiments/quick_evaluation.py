"""An evaluation of every task in about a second."""

from automix.experiments.evaluate.config import AttacksConfig, EvaluateConfig

QUICK = EvaluateConfig(attacks=AttacksConfig(steps=2, restarts=1, images=12))
