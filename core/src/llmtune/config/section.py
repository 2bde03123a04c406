"""The base of every section and options class, and the kinds of fields they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A small group of flags: one field is one flag, its description is the flag's help.

    The first line of the class docstring titles the group in `--help`. Bodies hold annotated
    assignments and validators only, and arguments of `Field`, `named`, `secret` and `pending` are literals, so
    that flags can be read without importing anything (`source.py`).
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        validate_default=True,
        defer_build=True,
        allow_inf_nan=False,
    )


def named(kind: str, default: Any, *, description: str, pending: Sequence[str] = ()) -> Any:
    """A flag whose value names something of `kind` in the catalogue; `pending` are names not available yet."""
    extra: dict[str, Any] = {"x-names": kind, **({"x-pending-names": list(pending)} if pending else {})}
    return Field(default, description=description, json_schema_extra=extra)


def secret(default: Any, *, description: str) -> Any:
    """A flag whose value is stored and shown nowhere."""
    return Field(default, description=description, repr=False, json_schema_extra={"x-secret": True})


def pending(
    default: Any, *, description: str, works: Sequence[Any] = (), secret: bool = False, **constraints: Any
) -> Any:
    """A flag that is understood but not available yet: a value other than the default or `works` is refused."""
    extra: dict[str, Any] = {"x-pending": True, "x-works": list(works), **({"x-secret": True} if secret else {})}
    return Field(default, description=description, repr=not secret, json_schema_extra=extra, **constraints)


def extra(section: type[Section], flag: str) -> dict[str, Any]:
    """Return what `named`, `secret` and `pending` noted about a flag."""
    found = section.model_fields[flag].json_schema_extra
    return found if isinstance(found, dict) else {}


def pending_flags(section: Section, defaults: Section) -> Iterator[str]:
    """Yield the flags of `section` that ask for what is not available yet."""
    for flag in type(section).model_fields:
        notes = extra(type(section), flag)
        value = getattr(section, flag)
        if notes.get("x-pending") and value not in (getattr(defaults, flag), *notes["x-works"]):
            yield flag
