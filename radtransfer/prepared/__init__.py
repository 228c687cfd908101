"""Data sets prepared once: decoded, resized, written in shards."""
