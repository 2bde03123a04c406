"""SmolLM and SmolLM2 models."""
