"""Transfer: what is reused, how the rest starts, and what is frozen."""
