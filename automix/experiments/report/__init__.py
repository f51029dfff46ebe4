"""The report and card commands."""
