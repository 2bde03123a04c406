"""FourierFT tuning through peft."""
