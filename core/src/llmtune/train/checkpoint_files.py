"""What core adds to every checkpoint: the arguments, the template and the tokenizer."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtune.errors import CheckpointError, OutputError
from llmtune.interfaces.template import Template
from llmtune.specs import TemplateSpec, ToolsPromptSpec
from llmtune.template.jinja import same_ids
from llmtune.train.run_folder import write_json

if TYPE_CHECKING:
    from llmtune.config.generation import GenerationSection

ARGUMENTS = "sft_args.json"
TEMPLATE = "template.json"
GENERATION = "generation_config.json"


class CheckpointFiles:
    """Writes core's files; the jinja form of the template is checked once, when this is built."""

    def __init__(
        self,
        arguments: dict[str, Any],
        spec: TemplateSpec,
        template: Template,
        tokenizer: Any,
        generation: GenerationSection,
    ) -> None:
        self.arguments, self.spec, self.tokenizer = arguments, spec, tokenizer
        self.generation = generation_config(generation, template, tokenizer)
        if same_ids(template, tokenizer):
            tokenizer.chat_template = template.carried()
        else:
            tokenizer.chat_template = None
            print(
                f"warning: template {spec.name!r} has no exact jinja form; checkpoints carry no chat_template",
                file=sys.stderr,
            )

    def write(self, folder: Path) -> None:
        """Write into a checkpoint that is being staged."""
        (folder / ARGUMENTS).write_text(_json(self.arguments), encoding="utf-8")
        (folder / TEMPLATE).write_text(_json(dataclasses.asdict(self.spec)), encoding="utf-8")
        self.tokenizer.save_pretrained(folder)
        (folder / GENERATION).write_text(_json(self.generation), encoding="utf-8")


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False)


def read_arguments(folder: Path, name: str = ARGUMENTS) -> dict[str, Any]:
    """Return the flags that the checkpoint was trained with."""
    try:
        arguments: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{folder / name} cannot be read: {error}",
            fix="add --load_args_from_ckpt_dir false and give --model_type and --sft_type yourself",
        ) from error
    return arguments


def generation_config(settings: GenerationSection, template: Template, tokenizer: Any) -> dict[str, Any]:
    """Return the generation flags as transformers, vLLM and others read them."""
    content = settings.model_dump()
    if not settings.do_sample:
        content = {key: value for key, value in content.items() if key not in ("temperature", "top_k", "top_p")}
    return content | {"eos_token_id": template.stop_token_ids(), "pad_token_id": tokenizer.pad_token_id}


def overwrite_generation_config(folder: Path, content: dict[str, Any]) -> None:
    """Replace the file in a checkpoint; one that cannot be written is as good for answering, so that is a warning."""
    try:
        write_json(folder / GENERATION, content)
    except OutputError as error:
        print(f"warning: {error.problem}", file=sys.stderr)


def read_template(folder: Path) -> TemplateSpec | None:
    """Return the template that the checkpoint was trained with, if it says so."""
    path = folder / TEMPLATE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tools = content.pop("tools_prompt", None)
        return TemplateSpec(**content, tools_prompt=None if tools is None else ToolsPromptSpec(**tools))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}", fix="add --template_type NAME to use a template of the plugins"
        ) from error
