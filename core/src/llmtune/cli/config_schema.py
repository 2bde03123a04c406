"""`llmtune config-schema`: the JSON schema of a command's options, for editors."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from llmtune.plugins.catalogue import Catalogue

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def config_schema(
    context: typer.Context, command: Annotated[str, typer.Argument(help="sft, infer, inspect ...")] = "sft"
) -> None:
    """Print the JSON schema of a command's run file."""
    from llmtune.config.schema import json_schema

    catalogue: Catalogue = context.obj.catalogue
    print(json.dumps(json_schema(command, catalogue), indent=1, ensure_ascii=False))
