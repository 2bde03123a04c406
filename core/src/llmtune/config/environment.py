"""Every environment variable that llmtune reads, in one place. Tokens are never returned by `recorded`."""

from __future__ import annotations

import os
from pathlib import Path

_TOKENS = ("HF_TOKEN", "MODELSCOPE_API_TOKEN")
_RECORDED = ("CUDA_VISIBLE_DEVICES", "USE_HF", "LLMTUNE_HUB", "LLMTUNE_ONLY_PLUGINS", "LLMTUNE_DISABLE_PLUGINS")


def _names(variable: str) -> frozenset[str]:
    return frozenset(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


def only_plugins() -> frozenset[str]:
    """LLMTUNE_ONLY_PLUGINS: comma-separated plugins; all others are switched off."""
    return _names("LLMTUNE_ONLY_PLUGINS")


def disabled_plugins() -> frozenset[str]:
    """LLMTUNE_DISABLE_PLUGINS: comma-separated plugins to switch off."""
    return _names("LLMTUNE_DISABLE_PLUGINS")


def plugin_trace() -> bool:
    """LLMTUNE_PLUGIN_TRACE=1 prints every hook call, and tracebacks of errors."""
    return os.environ.get("LLMTUNE_PLUGIN_TRACE", "") not in ("", "0")


def preferred_hub() -> str | None:
    """LLMTUNE_HUB names a hub; USE_HF=1 is SWIFT's way to say huggingface."""
    if os.environ.get("USE_HF", "").lower() in ("1", "true"):
        return "huggingface"
    return os.environ.get("LLMTUNE_HUB") or None


def cache_folder() -> Path:
    """LLMTUNE_CACHE, or the platform's user cache folder (XDG_CACHE_HOME) plus `llmtune`."""
    own = os.environ.get("LLMTUNE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "llmtune"


def world() -> tuple[int, int]:
    """RANK and WORLD_SIZE as torchrun sets them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def local_rank() -> int:
    """LOCAL_RANK as torchrun sets it: the number of this process's GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def terminal_width() -> int | None:
    """COLUMNS, where a user or a test sets the width of the output."""
    value = os.environ.get("COLUMNS", "")
    return int(value) if value.isdigit() else None


def recorded() -> dict[str, str]:
    """The variables that shape a run, for run.json; tokens appear as "set" only."""
    values = {name: os.environ[name] for name in _RECORDED if name in os.environ}
    return values | {name: "set" for name in _TOKENS if os.environ.get(name)}
