"""Run folders: written, locked and read."""
