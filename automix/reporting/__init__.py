"""Figures, contact sheets and the HTML report."""
