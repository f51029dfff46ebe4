"""Classifiers by name, and their initialisation."""
