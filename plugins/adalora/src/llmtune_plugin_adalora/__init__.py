"""AdaLoRA tuning through peft."""
