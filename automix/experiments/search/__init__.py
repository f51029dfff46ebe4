"""The search command: race, learning, selection, final."""
