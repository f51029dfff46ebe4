"""The replay command."""
