"""VeRA tuning through peft."""
