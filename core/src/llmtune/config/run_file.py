"""Read a YAML or JSON run file: one mapping of flags to values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmtune.errors import UsageError


def read_run_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return (flag -> value, flag -> line). JSON is read as the YAML that it is."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"run file {path}: {error.strerror}", fix="check the path") from error
    except yaml.YAMLError as error:
        raise UsageError(f"run file {path} is not valid YAML: {error}", fix="mend the line named above") from error
    if values is None:
        return {}, {}
    if not isinstance(values, dict):
        raise UsageError(f"run file {path} must be a mapping of options to values, found a {type(values).__name__}")
    assert isinstance(node, yaml.MappingNode)
    lines = {str(key.value).replace("-", "_"): key.start_mark.line + 1 for key, _ in node.value}
    return {str(key).replace("-", "_"): value for key, value in values.items()}, lines
