"""Bottleneck adapters behind the MLPs."""
