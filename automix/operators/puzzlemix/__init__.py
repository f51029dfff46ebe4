"""Puzzle Mix: operator, energy, graph-cut solver and transport."""
