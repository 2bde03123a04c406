"""Full fine-tuning, with freezing."""
