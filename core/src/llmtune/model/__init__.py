"""Models: from a name to a loaded model and tokenizer."""
