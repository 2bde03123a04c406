"""Models and datasets from the Hugging Face Hub."""
