"""The learning-rate range test: a few hundred steps with a rising rate, and what their losses suggest."""
