"""Mixing operators: pure functions that draw parameters, and pure functions that apply them."""

from automix.operator_info import Operator
from automix.operators.registry import OPERATORS, mix
from automix.operators.types import BatchShape, MixedBatch, OperatorSpec

__all__ = ["OPERATORS", "BatchShape", "MixedBatch", "Operator", "OperatorSpec", "mix"]
