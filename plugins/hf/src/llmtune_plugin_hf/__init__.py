"""Training with the Trainer of transformers."""
