"""Read flags from the source of their classes, without importing pydantic or a plugin.

Section bodies are annotated assignments with literal arguments (the conformance kit holds plugins to
that), so `ast` can read names, defaults, choices and help. It keeps a misspelt flag and `--help`
cheap, and broken plugins that a run does not use out of the way.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from llmtune.plugins.catalogue import Catalogue, Entry

_TRAINING = ("tuner", "extension", "trainer", "quantizer", "metric", "preprocessor")
_ANSWERING = ("engine", "quantizer", "preprocessor")
OPTION_KINDS: dict[str, tuple[str, ...]] = {
    "sft": _TRAINING,
    "pt": _TRAINING,
    "rlhf": _TRAINING,
    "infer": _ANSWERING,
    "merge-lora": _ANSWERING,
    "export": _ANSWERING,
    "eval": _ANSWERING,
    "deploy": _ANSWERING,
    "app-ui": _ANSWERING,
    "web-ui": (),
    "inspect": ("preprocessor",),
}
"""Command -> the kinds whose plugins add flags to it."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag as its class states it."""

    name: str
    takes: str
    """What it takes: TEXT, NUMBER, true|false, LIST, JSON, or its choices."""
    choices: tuple[Any, ...] = ()
    default: Any = None
    description: str = ""
    names: str | None = None
    """Kind of the catalogue that its value names."""
    pending: bool = False
    """Whether its feature is not available yet."""
    pending_names: tuple[str, ...] = ()
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The flags of one section or one plugin's options."""

    title: str
    flags: tuple[Flag, ...]
    entry: Entry | None = None
    """The entry whose options these are; None for core's own."""
    note: str = ""
    """Why the flags of a plugin cannot be read."""


@dataclass(frozen=True)
class _Module:
    classes: Mapping[str, ast.ClassDef]
    aliases: Mapping[str, ast.expr]
    imports: Mapping[str, str]
    """Name -> the module that it comes from."""


@cache
def _module(path: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    froms = (node for node in tree.body if isinstance(node, ast.ImportFrom))
    return _Module(classes, aliases, {name.name: node.module or "" for node in froms for name in node.names})


@cache
def _fields(path: Path, class_name: str) -> dict[str, ast.AnnAssign]:
    """Return the public fields of a class and of its bases; a class's own come last."""
    node = _module(path).classes.get(class_name)
    if node is None:
        origin = _file_of_module(_module(path).imports.get(class_name, ""), path)
        return _fields(origin, class_name) if origin else {}
    fields: dict[str, ast.AnnAssign] = {}
    for base in node.bases:
        fields |= _fields(path, base.id) if isinstance(base, ast.Name) else {}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not _is_class_var(item):
            fields[item.target.id] = item
    return {name: item for name, item in fields.items() if not name.startswith("_")}


def _file_of_module(module: str, importer: Path) -> Path | None:
    """Return the file of a module of llmtune or of the importer's own package, where base classes come from."""
    top, *inside = module.split(".")
    folders = (*Path(__file__).parents, *importer.parents)
    root = next((folder for folder in folders if folder.name == top and inside), None)
    path = root.joinpath(*inside).with_suffix(".py") if root else importer
    return path if path.is_file() and path != importer else None


def _is_class_var(item: ast.AnnAssign) -> bool:
    return isinstance(item.annotation, ast.Subscript) and _name(item.annotation.value) == "ClassVar"


def field_names(path: Path, class_name: str) -> list[str]:
    """Return the names of the flags of a class."""
    return list(_fields(path, class_name))


def read_flags(path: Path, class_name: str, defaults: Mapping[str, Any] | None = None) -> list[Flag]:
    """Return the flags of a class; `defaults` are those that a command sets differently."""
    aliases = _module(path).aliases
    flags = [_flag(name, item, aliases) for name, item in _fields(path, class_name).items()]
    return [replace(flag, default=(defaults or {}).get(flag.name, flag.default)) for flag in flags]


def _flag(name: str, item: ast.AnnAssign, aliases: Mapping[str, ast.expr]) -> Flag:
    annotation = aliases.get(_name(item.annotation), item.annotation)
    choices = tuple(_choices(annotation))
    takes = "|".join(dict.fromkeys(map(str, choices) if choices else _types(annotation)))
    if not isinstance(item.value, ast.Call):
        return Flag(name=name, takes=takes, choices=choices, default=_literal(item.value))
    call, positional = item.value, list(item.value.args)
    said = {keyword.arg: _literal(keyword.value) for keyword in call.keywords if keyword.arg}
    is_named = _name(call.func) == "named"
    kind = _literal(positional.pop(0)) if is_named else None
    return Flag(
        name=name,
        takes=takes,
        choices=choices,
        default=_literal(positional[0]) if positional else said.get("default"),
        description=said.get("description") or "",
        names=kind,
        pending=_name(call.func) == "pending",
        pending_names=tuple(said.get("pending") or ()),
        secret=_name(call.func) == "secret" or bool(said.get("secret")),
    )


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _choices(node: ast.expr) -> Iterator[Any]:
    """Yield the values of a `Literal`, inside `X | None` and `Annotated` too."""
    if isinstance(node, ast.BinOp):
        yield from _choices(node.left)
        yield from _choices(node.right)
    elif isinstance(node, ast.Subscript) and _name(node.value) == "Literal":
        values = _literal(node.slice)
        yield from values if isinstance(values, tuple) else (values,)
    elif isinstance(node, ast.Subscript) and _name(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
        yield from _choices(node.slice.elts[0])


_TYPES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "bool": "true|false", "dict": "JSON", "list": "LIST"}


def _types(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.BinOp):
        yield from _types(node.left)
        yield from _types(node.right)
    elif isinstance(node, ast.Subscript) and _name(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
        yield from _types(node.slice.elts[0])
    else:
        name = _name(node.value) if isinstance(node, ast.Subscript) else _name(node)
        if name:
            yield _TYPES.get(name, name)


# --- the flags of a command -----------------------------------------------------------------------


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.replace("-", "_").split("_"))


def _sections(command: str) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    """Yield (file, class, differing defaults) of core's own sections for `command`."""
    folder = Path(__file__).parent
    for name, item in _fields(folder / "commands.py", f"{_camel(command)}Config").items():
        keywords = item.value.keywords if isinstance(item.value, ast.Call) else []
        defaults = {keyword.arg: _literal(keyword.value) for keyword in keywords if keyword.arg}
        yield folder / f"{name}.py", f"{_camel(name)}Section", defaults


def section_flags(command: str) -> list[str]:
    """Return the names of core's own flags for `command`."""
    return [flag for path, class_name, _ in _sections(command) for flag in field_names(path, class_name)]


def plugin_flags(command: str, catalogue: Catalogue) -> Iterator[tuple[str, Entry]]:
    """Yield (flag, owner) for every option that installed plugins add to `command`."""
    for kind in OPTION_KINDS[command]:
        for entry in catalogue.entries(kind):
            for flag in option_names(entry):
                yield flag, entry


def panels(command: str, catalogue: Catalogue) -> Iterator[Panel]:
    """Yield what `--help` shows: core's sections, then the options of each plugin."""
    for path, class_name, defaults in _sections(command):
        yield Panel(title=_title(path, class_name), flags=tuple(read_flags(path, class_name, defaults)))
    differing = _option_defaults(command)
    for kind in OPTION_KINDS[command]:
        for entry in catalogue.entries(kind):
            if entry.facts.get("options") is not None:
                yield options_panel(entry, differing)


def _title(path: Path, class_name: str) -> str:
    node = _module(path).classes.get(class_name)
    return (ast.get_docstring(node) or class_name).splitlines()[0] if node else class_name


def _option_defaults(command: str) -> dict[str, Any]:
    node = _module(Path(__file__).parent / "commands.py").classes[f"{_camel(command)}Config"]
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and _name(item.target) == "option_defaults":
            return dict(_literal(item.value) or {})
    return {}


def options_panel(entry: Entry, defaults: Mapping[str, Any] | None = None) -> Panel:
    """Return the flags of an entry's options; `defaults` are those that a command sets differently."""
    label = f"{entry.kind} {entry.name}"
    options = entry.facts["options"]
    try:
        if isinstance(options, type):  # a local plugin hands over the class itself
            path, class_name = Path(_file_of(options)), options.__name__
        else:
            path, class_name = _source(entry, options)
        flags = tuple(read_flags(path, class_name, defaults))
        return Panel(title=f"{_title(path, class_name)} ({label})", flags=flags, entry=entry)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        note = f"the options of {label} in plugin {entry.plugin} cannot be read: {error}"
        return Panel(title=label, flags=(), entry=entry, note=f"{note}\nllmtune plugins doctor {entry.plugin.name}")


def _file_of(options: type) -> str:
    import inspect

    return inspect.getsourcefile(options) or ""


def option_names(entry: Entry) -> list[str]:
    """Return the flags of one entry, read from its `options` class."""
    options = entry.facts.get("options")
    if options is None:
        return []
    if isinstance(options, type):
        return list(getattr(options, "model_fields", {}))
    try:
        return field_names(*_source(entry, options))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return []  # reported by `llmtune plugins doctor`; the run fails only if it uses this entry


def _source(entry: Entry, options: str) -> tuple[Path, str]:
    module, _, class_name = options.partition(":")
    if entry.plugin.manifest_path is None:
        raise FileNotFoundError(module)
    inside = module.split(".")[1:]
    return entry.plugin.manifest_path.parent.joinpath(*inside).with_suffix(".py"), class_name
