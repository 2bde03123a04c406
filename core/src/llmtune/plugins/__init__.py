"""Plugins: manifests, the catalogue built from them, and the pluggy manager that runs the chosen ones."""
