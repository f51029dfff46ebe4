"""The compare and transfer commands."""
