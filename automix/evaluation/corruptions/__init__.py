"""The 15 CIFAR-C corruptions at 5 severities: our own seeded versions, or the published arrays."""
