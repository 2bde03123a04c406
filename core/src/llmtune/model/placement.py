"""On which devices a model lies: its process's own, those of a file, or as many as its memory asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmtune.config.environment import local_rank
from llmtune.errors import UsageError
from llmtune.specs import LoadOptions

_SIZES = {"GIB": 1 << 30, "MIB": 1 << 20, "KIB": 1 << 10, "GB": 10**9, "MB": 10**6, "KB": 10**3}


def read_device_map(path: Path) -> dict[str, int | str]:
    """Return the device of each module that the JSON file of --device_map_config_path names."""
    example = 'an object such as {"model.layers.0": 0, "lm_head": "cpu"}'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--device_map_config_path {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(
            f"--device_map_config_path {path} is not valid JSON: {error}", fix=f"write {example}"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(device, int | str) for device in found.values()):
        raise UsageError(f"--device_map_config_path {path} holds no devices by module", fix=f"write {example}")
    return found


def placement(options: LoadOptions) -> dict[str, Any]:
    """Return keywords of `from_pretrained`; without a wish this process's own GPU, or the CPU."""
    import torch

    if options.device_map is not None:
        return {"device_map": dict(options.device_map)}
    if options.max_memory:
        on_gpu = torch.cuda.is_available()
        limits = {number if on_gpu else "cpu": _bytes(size) for number, size in enumerate(options.max_memory)}
        return {"device_map": "auto", "max_memory": limits}
    if options.shared:
        return {}
    return {"device_map": {"": f"cuda:{local_rank()}"} if torch.cuda.is_available() else None}


def _bytes(size: str) -> int:
    unit = next(unit for unit in _SIZES if size.upper().endswith(unit))
    return int(float(size[: -len(unit)]) * _SIZES[unit])
