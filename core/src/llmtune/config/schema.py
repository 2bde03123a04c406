"""The JSON schema of a command's run file: one flat mapping, as the flags are."""

from __future__ import annotations

from typing import Any

from llmtune.config.aliases import RENAMED, aliases
from llmtune.config.build import default_sections, options_class
from llmtune.config.commands import COMMANDS
from llmtune.config.section import Section
from llmtune.config.source import OPTION_KINDS
from llmtune.errors import PluginFailed, UsageError, did_you_mean
from llmtune.plugins.catalogue import Catalogue


def json_schema(command: str, catalogue: Catalogue) -> dict[str, Any]:
    """Return the schema of `command` with the options of the installed plugins (broken ones left out)."""
    if command not in COMMANDS:
        raise UsageError(
            f"no configuration for command {command!r}",
            fix=did_you_mean(command, COMMANDS) or f"one of {', '.join(COMMANDS)}",
        )
    properties: dict[str, Any] = {}
    for section in _sections(command, catalogue):
        defaults = section.model_dump(mode="json")
        for name, prop in type(section).model_json_schema()["properties"].items():
            properties.setdefault(name, {**prop, "default": defaults[name], "x-section": section.__doc__})
    for old, new in aliases(properties).items():
        kind = properties[new] if old in RENAMED else {}
        properties[old] = {**kind, "deprecated": True, "description": f"Old name; write {new}."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"llmtune {command}",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _sections(command: str, catalogue: Catalogue) -> list[Section]:
    """Return every section and options class of `command` with its defaults."""
    config_class = COMMANDS[command]
    sections = [part for name, part in default_sections(config_class).items() if name != "invocation"]
    for kind in OPTION_KINDS[command]:
        for entry in catalogue.entries(kind):
            try:
                options = options_class(entry)
            except PluginFailed:
                continue
            if options is not None:
                own = {
                    flag: value for flag, value in config_class.option_defaults.items() if flag in options.model_fields
                }
                sections.append(options(**own))
    return sections
