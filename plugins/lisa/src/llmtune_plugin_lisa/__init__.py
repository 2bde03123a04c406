"""LISA: full fine-tuning of a few layers at a time."""
