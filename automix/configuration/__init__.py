"""Typed configuration: base class, YAML, command line, sections of a training run."""
