"""Gymnasium environments that wrap the training of a classifier."""
