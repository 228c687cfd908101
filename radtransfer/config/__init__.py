"""Settings: their schema, files and recipes."""
