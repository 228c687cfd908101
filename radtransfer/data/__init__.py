"""Tables of labelled images: read, checked and split."""
