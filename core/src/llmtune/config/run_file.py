"""Read a YAML or JSON run file: one mapping of flags to values."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from llmtune.errors import UsageError

_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")


def read_run_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return (flag -> value, flag -> line). JSON is read as the YAML that it is."""
    import yaml

    text = _text(path)
    try:
        loader = _loader_class()(text)
        node = loader.get_single_node()
        return _mapping(path, loader, node)
    except yaml.YAMLError as error:
        raise UsageError(f"run file {path} is not valid YAML: {error}", fix="mend the line named above") from error
    except RecursionError as error:
        raise UsageError(f"run file {path} is nested too deeply", fix="options take flat values") from error


def _mapping(path: Path, loader: Any, node: Any) -> tuple[dict[str, Any], dict[str, int]]:
    import yaml

    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"run file {path} must be a mapping of options to values, found {_kind(loader, node)}")
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{path}:{key.start_mark.line + 1}: a key must be the name of an option", fix="see --help")
        # The text of the key, not what YAML makes of it: `on` is true and `~` is null there.
        flag, line = str(key.value).replace("-", "_"), key.start_mark.line + 1
        if flag in values:
            raise UsageError(f"{path}:{line}: {flag} is given twice", fix=f"line {lines[flag]} has it too; remove one")
        values[flag], lines[flag] = _value(f"{path}:{line}: {flag}", loader, value), line
    return values, lines


def _value(place: str, loader: Any, node: Any) -> Any:
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, IndexError) as error:  # `!!int x`, or a number of 5,000 digits
        raise UsageError(f"{place}: {error}", fix="write it as plain text, a number, a list or a mapping") from error


@cache
def _loader_class() -> Any:
    """A YAML loader for what JSON has too: 2024-01-01 is a text, and there are no bytes or sets."""
    import yaml

    constructors = {
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _PLAIN
    }
    resolvers = {
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    constructors["tag:yaml.org,2002:str"] = _characters
    attributes = {"yaml_constructors": constructors, "yaml_implicit_resolvers": resolvers}
    return type("Loader", (yaml.SafeLoader,), attributes)


def _characters(loader: Any, node: Any) -> str:
    r"""Read \ud83d\ude00 as one character: JSON writes those beyond 16 bits as two, which YAML does not know."""
    text: str = loader.construct_scalar(node)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"run file {path}: {error.strerror}", fix="check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"run file {path} is not UTF-8: {error}", fix="convert the file to UTF-8") from error
    except ValueError as error:  # no path can hold a null byte
        raise UsageError(f"run file {path}: {error}", fix="check the path") from error
    # YAML allows no tabs between tokens, JSON does.
    return text.replace("\t", " ") if path.suffix == ".json" else text


def _kind(loader: Any, node: Any) -> str:
    return f"a {type(loader.construct_object(node, deep=True)).__name__}"
