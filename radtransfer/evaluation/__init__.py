"""Metrics, predictions and explanations of trained models."""
