"""What this machine offers to radtransfer, and what stands in its way."""
