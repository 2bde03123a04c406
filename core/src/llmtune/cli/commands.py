"""The commands with a configuration; `llmtune-plugin.toml` names them."""

from llmtune.cli.config_command import ConfigCommand

sft = ConfigCommand("sft")
pt = ConfigCommand("pt")
rlhf = ConfigCommand("rlhf")
infer = ConfigCommand("infer")
merge_lora = ConfigCommand("merge-lora")
export = ConfigCommand("export")
evaluate = ConfigCommand("eval")
deploy = ConfigCommand("deploy")
app_ui = ConfigCommand("app-ui")
web_ui = ConfigCommand("web-ui")
inspect = ConfigCommand("inspect")
