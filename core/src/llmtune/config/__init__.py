"""Configuration: pydantic sections, flags, run files and environment variables."""
