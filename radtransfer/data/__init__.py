"""Looking at a data set: summary, checks, split, preview."""
