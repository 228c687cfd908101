"""Opening every image before training, and what is wrong with those that cannot be used."""
