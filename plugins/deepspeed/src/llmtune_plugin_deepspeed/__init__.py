"""DeepSpeed: parameters, gradients and optimizer state shared among processes."""
