"""The flag of DeepSpeed, as one of its configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from llmtune.api import Section

_STAGES = (0, 1, 2, 3)


class DeepspeedOptions(Section):
    """DeepSpeed"""

    deepspeed: str | dict[str, Any] | None = Field(
        None,
        description="Share the model among processes: default-zero2, default-zero3 (each also with -offload), a JSON "
        "file or JSON.",
    )

    @field_validator("deepspeed")
    @classmethod
    def _read(cls, value: str | dict[str, Any] | None) -> dict[str, Any] | None:
        """Return the configuration itself: a checkpoint stores it, wherever it came from."""
        if value is None:
            return None
        found = value if isinstance(value, dict) else _parsed(value)
        zero = found.get("zero_optimization")
        if not isinstance(zero, dict):
            raise ValueError("holds no 'zero_optimization'")
        if zero.get("stage") not in _STAGES:
            raise ValueError(f"must have a zero_optimization.stage of {_STAGES}")
        return found


def _parsed(value: str) -> dict[str, Any]:
    """Return the settings of a name, a file or JSON."""
    name = value.removeprefix("default-")
    own = Path(__file__).with_name(f"{name}.json")
    path = own if value == f"default-{name}" and name.isprintable() and "/" not in name else Path(value)
    known = ", ".join(f"default-{one.stem}" for one in sorted(Path(__file__).parent.glob("zero*.json")))
    if path is own and not own.is_file():
        raise ValueError(f"is {value!r}; known are {known}, a JSON file or JSON")
    try:
        text = value if value.lstrip().startswith("{") else path.expanduser().read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise ValueError(f"names {value!r}, which is no file; known are {known}, a JSON file or JSON") from error
    except ValueError as error:
        raise ValueError(f"is not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("holds no settings of DeepSpeed")
    return found
