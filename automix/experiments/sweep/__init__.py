"""The ablate command: sweeps of experiments."""
