"""`llmtune inspect`."""

from llmtune.cli.config_command import ConfigCommand

app = ConfigCommand("inspect", "llmtune.pipelines.inspect:inspect")
