"""Read a YAML or JSON run file: one mapping of flags to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmtune.errors import UsageError


def read_run_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return (flag -> value, flag -> line). JSON is read as the YAML that it is."""
    import yaml

    loader = yaml.SafeLoader(_text(path))
    try:
        node = loader.get_single_node()
        if node is None or (isinstance(node, yaml.ScalarNode) and loader.construct_object(node) is None):
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise UsageError(f"run file {path} must be a mapping of options to values, found {_kind(loader, node)}")
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            # The text of the key, not what YAML makes of it: `on` is true and `~` is null there.
            flag, line = str(key.value).replace("-", "_"), key.start_mark.line + 1
            if flag in values:
                raise UsageError(
                    f"{path}:{line}: {flag} is given twice", fix=f"line {lines[flag]} has it too; remove one"
                )
            values[flag], lines[flag] = loader.construct_object(value, deep=True), line
    except yaml.YAMLError as error:
        raise UsageError(f"run file {path} is not valid YAML: {error}", fix="mend the line named above") from error
    finally:
        loader.dispose()
    return values, lines


def _text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"run file {path}: {error.strerror}", fix="check the path") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"run file {path} is not UTF-8: {error}", fix="convert the file to UTF-8") from error
    # YAML allows no tabs between tokens, JSON does.
    return text.replace("\t", " ") if path.suffix == ".json" else text


def _kind(loader: Any, node: Any) -> str:
    return f"a {type(loader.construct_object(node, deep=True)).__name__}"
