"""Mixing operators: pure functions that draw parameters, and pure functions that apply them."""

from automix.operators.registry import OPERATORS, mix
from automix.operators.types import BatchShape, MixedBatch, OperatorSpec
from automix.vocabulary import Operator

__all__ = ["OPERATORS", "BatchShape", "MixedBatch", "Operator", "OperatorSpec", "mix"]
