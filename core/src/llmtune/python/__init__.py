"""The Python API: the names that SWIFT's users import, all of them available as `llmtune.<name>`."""
