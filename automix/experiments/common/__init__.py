"""Shared by all commands: run folder, progress, pool of training runs, cost."""
