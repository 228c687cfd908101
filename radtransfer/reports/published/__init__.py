"""What the page of published results is made of."""
