"""Text generation with transformers."""
