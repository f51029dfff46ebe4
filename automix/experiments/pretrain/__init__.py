"""Pretraining of a policy over a family of tasks."""
