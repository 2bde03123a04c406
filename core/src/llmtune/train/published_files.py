"""What of a checkpoint goes to a hub, laid out in a folder beside it.

Files are linked, not copied: the folder takes no space, and stays whole when `--save_total_limit` deletes
the checkpoint. What files say about this machine is left out.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from llmtune.train import checkpoint
from llmtune.train.checkpoint_files import ARGUMENTS

_ONLY_FOR_RESUMING = (
    *("*.pt", "*.pth", "pytorch_model*.bin", "training_args.bin"),  # llmtune writes no weights as pickles
    *(
        "optimizer*",
        "scheduler*",
        "rng_state*",
        "trainer_state.json",
        "micro_batches.json",
        "*_state.safetensors",
        "*_state.json",
    ),
    *("global_step*", "latest", "zero_to_fp32.py", "*fsdp*"),  # DeepSpeed and FSDP
)
_MAY_NAME_PATHS = (ARGUMENTS, "trainer_state.json")
_MAY_NAME_THE_BASE = ("adapter_config.json", "config.json", "tokenizer_config.json")
_BASE = ("base_model_name_or_path", "_name_or_path", "name_or_path")


def lay_out(source: Path, target: Path, *, base: str, resumable: bool = False) -> None:
    """Put the files of the checkpoint `source` into the new folder `target`, with a completion mark of their own.

    Without `resumable`: those that answering needs. `base` takes the place of the base model's local folder.
    """
    target.mkdir(parents=True)
    for path in _files(source, resumable):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.name not in (*_MAY_NAME_PATHS, *_MAY_NAME_THE_BASE) or not _rewritten(path, place, base):
            _link(path, place)
    if (source / checkpoint.MARK).is_file():  # a folder of another program has none
        checkpoint.seal(target)


def _files(source: Path, resumable: bool) -> Iterator[Path]:
    for path in sorted(source.rglob("*")):
        parts = path.relative_to(source).parts
        needed = resumable or not any(fnmatch(part, pattern) for part in parts for pattern in _ONLY_FOR_RESUMING)
        if path.is_file() and needed and parts != (checkpoint.MARK,):
            yield path


def _rewritten(path: Path, place: Path, base: str) -> bool:
    """Write `path` without local paths; False where it is no JSON or has none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    shared = _of_any_base(content, base) if path.name in _MAY_NAME_THE_BASE else _shared(content)
    if shared == content:
        return False
    place.write_text(json.dumps(shared, indent=1, ensure_ascii=False), encoding="utf-8")
    return True


def _of_any_base(content: Any, base: str) -> Any:
    """Return the content with `base` in place of a local folder. Other words, of a vocabulary say, are no paths."""
    local = [key for key in _BASE if key in content and without_local_paths(content[key]) != content[key]]
    return {**content, **dict.fromkeys(local, base)} if local else content


def _shared(content: Any) -> Any:
    kept = without_local_paths(content)
    if "model_id_or_path" in content and kept["model_id_or_path"] != content["model_id_or_path"]:
        kept["model_id_or_path"] = None  # --model_type says which model it is
    return kept


def without_local_paths(value: Any) -> Any:
    """Return `value` with each file and folder of this machine replaced by its name alone."""
    if isinstance(value, dict):
        return {key: without_local_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_local_paths(one) for one in value]
    return _name_alone(value) if isinstance(value, str) else value


def _name_alone(text: str) -> str:
    path, mark, sample = text.partition("#")  # a dataset says how many rows: rows.jsonl#500
    if not path or len(path) > 4096 or "\n" in path or "\0" in path:
        return text
    expanded = os.path.expanduser(path)
    name = os.path.basename(os.path.normpath(expanded))
    return name + mark + sample if name and _is_here(expanded) else text


def _is_here(path: str) -> bool:
    """Whether `path` is on this machine, or was: below the user's home or where the run was started."""
    homes = [str(folder) for folder in (Path.home(), Path.cwd()) if folder != Path("/")]
    return os.path.lexists(path) or path.startswith(tuple(f"{home}/" for home in homes))


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # not on every file system
        shutil.copyfile(path, place)
