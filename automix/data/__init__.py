"""Images and labels: sources, seeded splits, the packed cache, batch preparation."""
