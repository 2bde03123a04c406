"""llmtune: fine-tune, serve, evaluate and export language models through plugins."""

from __future__ import annotations

TYPE_CHECKING = False  # read by type checkers; importing typing would be a tenth of `llmtune --version`
if TYPE_CHECKING:
    from typing import Any

    from llmtune.plugins.local import (
        Template,
        register_command,
        register_dataset,
        register_model,
        register_template,
        register_tuner,
    )

# Kept as a literal: `llmtune --version` must not pay for importlib.metadata (70 ms).
__version__ = "0.1.0"

__all__ = [
    "Template",
    "register_command",
    "register_dataset",
    "register_model",
    "register_template",
    "register_tuner",
]


def __getattr__(name: str) -> Any:
    """Import the registration functions on first use: `import llmtune` itself stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module 'llmtune' has no attribute {name!r}")
    from llmtune.plugins import local

    return getattr(local, name)
