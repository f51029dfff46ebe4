"""Whole experiments; nothing below imports this."""
