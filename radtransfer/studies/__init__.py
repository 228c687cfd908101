"""A study: a grid of runs told in one YAML file, computed once each, and their tables."""
