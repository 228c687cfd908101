"""Metrics of predictions, with their intervals."""
