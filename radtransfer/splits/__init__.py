"""Splitting images: patients kept together, classes kept even, leaks found."""
