"""LongLoRA tuning: LoRA with shifted sparse attention."""
