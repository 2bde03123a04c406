"""LoRA tuning through peft."""
