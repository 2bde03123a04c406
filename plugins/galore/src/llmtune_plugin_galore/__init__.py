"""GaLore and Q-GaLore: full fine-tuning with projected gradients."""
