"""Comparisons of two networks or two runs: layers, predictions, weights."""
