"""`llmtune infer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmtune.cli.config_command import ConfigCommand

if TYPE_CHECKING:
    from llmtune.cli.invocation import Invocation


class InferCommand(ConfigCommand):
    """Flags that are not given come from the checkpoint."""

    def _values(self, arguments: Sequence[str], obj: Invocation) -> dict[str, Any]:
        values = super()._values(arguments, obj)
        from llmtune.config.build import build_config
        from llmtune.config.commands import InferConfig
        from llmtune.pipelines.infer import arguments_from_checkpoint

        return arguments_from_checkpoint(values, build_config(InferConfig, self._core(values)), obj.catalogue)


app = InferCommand("infer", "llmtune.pipelines.infer:infer")
