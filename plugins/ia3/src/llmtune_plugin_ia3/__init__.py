"""(IA)3 tuning through peft."""
