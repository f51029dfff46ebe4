"""Metrics of trained classifiers and statistics of experiments, as pure functions."""
