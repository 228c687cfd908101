"""From an image file to a batch."""
