"""The conformance kit that plugin authors subclass."""
