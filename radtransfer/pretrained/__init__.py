"""Pretrained weights: found, read and matched."""
