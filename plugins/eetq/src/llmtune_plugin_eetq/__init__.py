"""8-bit base models through EETQ."""
