"""The search command: learning, selection, probe."""
