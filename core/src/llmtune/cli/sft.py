"""`llmtune sft`."""

from llmtune.cli.config_command import ConfigCommand

app = ConfigCommand("sft", "llmtune.pipelines.sft:sft")
