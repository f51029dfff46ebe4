"""Mixing operators: pure functions that draw parameters, and pure functions that apply them."""
