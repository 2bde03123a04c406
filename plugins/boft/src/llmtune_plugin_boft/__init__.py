"""BOFT tuning through peft."""
