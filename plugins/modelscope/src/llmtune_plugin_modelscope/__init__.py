"""Models and datasets from ModelScope."""
