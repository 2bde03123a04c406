"""Base models in 1 to 8 bits through hqq."""
