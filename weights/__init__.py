"""The manifest of known weight files; never a weight file."""
