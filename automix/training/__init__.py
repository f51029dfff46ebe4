"""The one training loop, used by the environment and by replay."""
