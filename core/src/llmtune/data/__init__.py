"""Rows: selection, reading, preprocessing, splitting."""
