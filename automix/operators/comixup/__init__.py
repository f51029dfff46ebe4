"""Co-Mixup: operator, energy and solver."""
