"""Every environment variable that llmtune reads, in one place. Tokens are never returned by `recorded`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llmtune.errors import UsageError

_TOKENS = ("HF_TOKEN", "MODELSCOPE_API_TOKEN")
_ON = frozenset(("1", "ON", "YES", "TRUE"))
"""What huggingface_hub takes for true."""
_RECORDED = (
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"),
    *("CUDA_VISIBLE_DEVICES", "USE_HF", "LLMTUNE_HUB", "LLMTUNE_ONLY_PLUGINS", "LLMTUNE_DISABLE_PLUGINS"),
    *("NPROC_PER_NODE", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"),
)


def tokens() -> list[str]:
    """The tokens that are set, for keeping them out of messages."""
    return [os.environ[name] for name in _TOKENS if os.environ.get(name)]


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


def offline() -> str | None:
    """HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE, the libraries' own way to open no connection; None where none is set."""
    names = (name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name))
    return next((f"{name}={os.environ[name]}" for name in names if os.environ[name].upper() in _ON), None)


def cache_folder() -> Path:
    """LLMTUNE_CACHE, or the platform's user cache folder (XDG_CACHE_HOME) plus `llmtune`."""
    own = os.environ.get("LLMTUNE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "llmtune"


@dataclass(frozen=True, kw_only=True)
class Processes:
    """The processes that the user asked for, in torchrun's terms."""

    per_node: int
    nodes: int
    node_rank: int
    address: str
    port: int | None
    """None: a free one is chosen, which works on one machine only."""

    @property
    def world_size(self) -> int:
        return self.per_node * self.nodes

    def rank(self, local_rank: int) -> int:
        return self.node_rank * self.per_node + local_rank

    def variables(self, local_rank: int, port: int) -> dict[str, str]:
        """The environment of one of this machine's processes, as torchrun sets it.

        Without OMP_NUM_THREADS each would compute on all cores, which is many times slower on a CPU.
        """
        threads = max(1, (os.cpu_count() or 1) // self.per_node)
        return {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "RANK": str(self.rank(local_rank)),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.per_node),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(port),
            "LLMTUNE_LAUNCHED": "1",
        }


def processes() -> Processes | None:
    """NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT; None when a run is one process.

    Processes that a launcher has started already (LOCAL_RANK is set) start no others.
    """
    asked = bool(os.environ.get("NPROC_PER_NODE") or os.environ.get("NNODES"))
    if not asked or is_worker():
        return None
    nodes, node_rank, address = _number("NNODES", 1, at_least=1), _number("NODE_RANK", 0), os.environ.get("MASTER_ADDR")
    if node_rank >= nodes:
        raise UsageError(f"NODE_RANK={node_rank} with NNODES={nodes}", fix=f"NODE_RANK is 0 to {nodes - 1}")
    if nodes > 1 and not address:
        raise UsageError(
            f"NNODES={nodes} without MASTER_ADDR", fix="export MASTER_ADDR=<address of the machine with NODE_RANK=0>"
        )
    return Processes(
        per_node=_number("NPROC_PER_NODE", 1, at_least=1),
        nodes=nodes,
        node_rank=node_rank,
        address=address or "127.0.0.1",
        port=_port(),
    )


def _port() -> int | None:
    port = _number("MASTER_PORT", 0)
    if port > 65535:
        raise UsageError(f"MASTER_PORT={port} is no port", fix="export MASTER_PORT=<1 to 65535>, or unset it")
    return port or None


def _number(variable: str, default: int, *, at_least: int = 0) -> int:
    text = os.environ.get(variable) or str(default)
    if not text.isdigit() or int(text) < at_least:
        raise UsageError(
            f"the environment variable {variable} must be a whole number of at least {at_least}, found {text!r}",
            fix=f"export {variable}={max(default, at_least)}, or unset it",
        )
    return int(text)


def is_launched() -> bool:
    """LLMTUNE_LAUNCHED, which llmtune's own launcher sets for the processes that it starts."""
    return "LLMTUNE_LAUNCHED" in os.environ


def is_worker() -> bool:
    """Whether a launcher such as torchrun started this process."""
    return "LOCAL_RANK" in os.environ


def world() -> tuple[int, int]:
    """RANK and WORLD_SIZE as torchrun sets them; before a launch, those it will set."""
    planned = processes()
    if planned is not None:
        return 0, planned.world_size
    size = _number("WORLD_SIZE", 1, at_least=1)
    if is_worker():
        return _number("RANK", 0), size
    if size > 1:  # schedulers set RANK and WORLD_SIZE for machines, torchrun sets LOCAL_RANK as well
        raise UsageError(
            f"WORLD_SIZE={size} is set and LOCAL_RANK is not: which process is this?",
            fix="unset WORLD_SIZE; several processes: NPROC_PER_NODE, NNODES, NODE_RANK, MASTER_ADDR",
        )
    return 0, 1


def local_rank() -> int:
    """LOCAL_RANK as torchrun sets it: the number of this process's GPU."""
    return _number("LOCAL_RANK", 0)


def local_world_size() -> int:
    """LOCAL_WORLD_SIZE as torchrun sets it: the processes of this run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1, at_least=1)


def terminal_width() -> int | None:
    """COLUMNS, where a user or a test sets the width of the output."""
    value = os.environ.get("COLUMNS", "")
    return int(value) if value.isdigit() else None


def no_color() -> bool:
    """NO_COLOR, whatever its value (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def recorded() -> dict[str, str]:
    """The variables that shape a run, for run.json; tokens appear as "set" only."""
    values = {name: os.environ[name] for name in _RECORDED if name in os.environ}
    return values | {name: "set" for name in _TOKENS if os.environ.get(name)}
