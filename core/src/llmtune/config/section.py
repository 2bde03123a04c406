"""The base of every section and options class."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A small group of flags: one field is one flag, its description is the flag's help.

    The first line of the class docstring titles the group in `--help`. Bodies hold annotated
    assignments and validators only, so that names can be read without importing (`field_names.py`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), validate_default=True)
