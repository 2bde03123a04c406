"""LLaMA-Pro: new decoder layers between frozen ones."""
