"""RL-Mix's agent: learned end to end, then compared."""
