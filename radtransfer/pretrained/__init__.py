"""Pretrained weights: where they are, whose they are, and how they get into a network."""
