"""Teaches a model its own name and author."""
