"""What `--hqq_dynamic_config_path` says about single layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from llmtune.api import UsageError

_EXAMPLE = 'write an object such as {"self_attn.v_proj": {"bits": 8, "group_size": 32}}'


class LayerSettings(BaseModel):
    """How one layer is quantized; what is left out is as for the others."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: Literal[1, 2, 3, 4, 8] | None = Field(None, validation_alias=AliasChoices("bits", "nbits"))
    group_size: int | None = Field(None, gt=0, multiple_of=8)
    axis: Literal[0, 1] | None = None

    def over(self, default: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keywords of hqq's `BaseQuantizeConfig`."""
        own = {"nbits": self.bits, "group_size": self.group_size, "axis": self.axis}
        return {**default, **{word: value for word, value in own.items() if value is not None}}


def read_layers(path: str) -> dict[str, LayerSettings]:
    """Return the end of a layer's name -> its settings."""
    flag = f"--hqq_dynamic_config_path {path}"
    try:
        return TypeAdapter(dict[str, LayerSettings]).validate_json(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise UsageError(f"{flag}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{flag}: {where + ': ' if where else ''}{first['msg']}", fix=_EXAMPLE) from error
