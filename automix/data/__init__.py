"""Images and labels: sources, packed storage, splits, batches."""
