"""Which preprocessing a pretrained network expects, read from its batch-norm statistics."""
