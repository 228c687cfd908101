"""Reports on runs and studies."""
