"""Policies: learned with PPO, and baselines behind the same protocol."""
