"""RL-Mix, the predecessor's environment, for comparison."""
