"""Where in an image a network finds what it says: maps, a check of them by another way, and a test of their worth."""
