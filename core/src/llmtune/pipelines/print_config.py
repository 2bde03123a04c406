"""A configuration as a run file: every flag with its value and its help, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from llmtune.config.build import add_options
from llmtune.config.commands import CommandConfig
from llmtune.config.section import Section, extra
from llmtune.config.source import OPTION_KINDS, option_names, plugin_flags
from llmtune.errors import Problems
from llmtune.pipelines.behaviours import find_behaviours
from llmtune.plugins.catalogue import Catalogue


def run_file(command: str, config: CommandConfig, catalogue: Catalogue) -> str:
    """Return YAML that `llmtune COMMAND FILE` reads back to the same configuration; secrets are left out."""
    problems = Problems()
    used, extending = find_behaviours(config, catalogue, problems)
    problems.raise_any()
    chosen = [entry for entry in (*used.values(), *extending) if entry.kind in OPTION_KINDS[command]]
    mine = {flag for entry in chosen for flag in option_names(entry)}
    given = set(config.values) - mine  # flags that the run does not use; of several owners one is enough
    others = {flag: entry for flag, entry in plugin_flags(command, catalogue) if flag in given}
    for entry in (*chosen, *others.values()):
        add_options(config, entry)
    keys = [(entry.kind, entry.name) for entry in chosen]
    parts = [(part, list(type(part).model_fields)) for name, part in config.sections() if name != "invocation"]
    for key, options in config._options.items():
        parts.append((options, [flag for flag in type(options).model_fields if key in keys or flag in config.values]))
    lines = [f"# llmtune {command} THIS_FILE"]
    written: set[str] = set()  # tuners may share flags
    for part, flags in parts:
        lines += _block(part, [flag for flag in flags if flag not in written])
        written.update(flags)
    return "\n".join(lines) + "\n"


def _block(section: Section, flags: list[str]) -> Iterator[str]:
    if not flags:
        return
    values = section.model_dump(mode="json")
    yield f"\n# {(section.__doc__ or '').splitlines()[0]}"
    for flag in flags:
        if not extra(type(section), flag).get("x-secret"):
            description = type(section).model_fields[flag].description
            yield f"{flag}: {_scalar(values[flag])}  # {description}"


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").rstrip("\n")
