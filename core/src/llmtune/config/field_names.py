"""Read the names of flags from the source of their classes, without importing pydantic or a plugin.

Section bodies are annotated assignments (the conformance kit holds plugins to that), so `ast` can
read their names. It keeps a misspelt flag cheap, and broken plugins that a run does not use out of
the way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from llmtune.plugins.catalogue import Catalogue, Entry

OPTION_KINDS: dict[str, tuple[str, ...]] = {
    "sft": ("tuner", "trainer", "quantizer", "preprocessor"),
    "infer": ("engine", "quantizer", "preprocessor"),
    "inspect": ("preprocessor",),
}
"""Command -> the kinds whose plugins add flags to it."""


@cache
def _classes(path: Path) -> dict[str, ast.ClassDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def field_names(path: Path, class_name: str) -> list[str]:
    """Return the public fields of a class and of its bases in the same file, in order."""
    classes = _classes(path)
    node = classes.get(class_name)
    if node is None:
        return []
    inherited = [name for base in node.bases if isinstance(base, ast.Name) for name in field_names(path, base.id)]
    own = [
        item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    ]
    return list(dict.fromkeys(name for name in inherited + own if not name.startswith("_")))


def section_flags(command: str) -> list[str]:
    """Return the flags of core's own sections for `command`."""
    folder = Path(__file__).parent
    sections = field_names(folder / "commands.py", f"{command.capitalize()}Config")
    return [
        flag for section in sections for flag in field_names(folder / f"{section}.py", f"{section.capitalize()}Section")
    ]


def plugin_flags(command: str, catalogue: Catalogue) -> Iterator[tuple[str, Entry]]:
    """Yield (flag, entry) for the options that installed plugins bring to `command`."""
    for kind in OPTION_KINDS[command]:
        for entry in catalogue.entries(kind):
            for flag in option_names(entry):
                yield flag, entry


def option_names(entry: Entry) -> list[str]:
    """Return the flags of one entry, read from its `options` class."""
    options = entry.facts.get("options")
    if options is None:
        return []
    if isinstance(options, type):  # a local plugin hands over the class itself
        return list(getattr(options, "model_fields", {}))
    module, _, class_name = options.partition(":")
    try:
        return field_names(_source(entry, module), class_name)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return []  # reported by `llmtune plugins doctor`; the run fails only if it uses this entry


def _source(entry: Entry, module: str) -> Path:
    if entry.plugin.manifest_path is None:
        raise FileNotFoundError(module)
    inside = module.split(".")[1:]
    return entry.plugin.manifest_path.parent.joinpath(*inside).with_suffix(".py")
