"""Agents of other libraries on our environments: each learns a schedule, and returns it."""
