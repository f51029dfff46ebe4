"""Classifiers by name, and their initialization."""
