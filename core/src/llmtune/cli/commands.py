"""The commands with a configuration; `llmtune-plugin.toml` names them."""

from llmtune.cli.config_command import ConfigCommand

sft = ConfigCommand("sft", "llmtune.pipelines.sft:sft", trains=True)
pt = ConfigCommand("pt", trains=True)
rlhf = ConfigCommand("rlhf", trains=True)
infer = ConfigCommand("infer", "llmtune.pipelines.infer:infer")
merge_lora = ConfigCommand("merge-lora", "llmtune.pipelines.merge:merge_lora")
export = ConfigCommand("export", "llmtune.pipelines.export:export")
evaluate = ConfigCommand("eval")
deploy = ConfigCommand("deploy")
app_ui = ConfigCommand("app-ui")
web_ui = ConfigCommand("web-ui")
inspect = ConfigCommand("inspect", "llmtune.pipelines.inspect:inspect")
