"""The sections of a report on runs: a figure and a table each, from the values that `arms/` found."""
