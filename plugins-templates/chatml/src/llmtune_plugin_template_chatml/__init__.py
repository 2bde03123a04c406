"""The ChatML chat format and its variants."""
