"""8-bit and 4-bit base models through bitsandbytes."""
