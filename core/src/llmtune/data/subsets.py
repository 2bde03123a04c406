"""Find the files of a subset and split in a dataset repository, and read them.

The repository's own word comes first: `configs:` with `data_files:` in the front matter of its
README.md, as HuggingFace defines them. Without it, names decide: a folder `<subset>/` or files
`<subset>*.jsonl`, and `train`, `test` ... as a word in the name of the file or of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from llmtune.data.files import is_data, read_records, subset_index
from llmtune.data.opening import Record
from llmtune.errors import DataError

_SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev", "eval"},
    "test": {"test", "testing"},
}
"""Split -> the words that mean it in names of files."""
_OWN = ("train", "validation")
_ALL_SPLITS = set().union(*_SPLITS.values())
_SHOWN = 20


Pairs = list[Sequence[str]]
"""(subset, split) of each part."""


def wanted_subsets(folder: Path, facts: Mapping[str, Any], names: Sequence[str]) -> tuple[Pairs | None, Pairs]:
    """Return the parts to train on and to validate with; None for all files of a folder that names no split.

    The manifest's `subsets` and `val_subsets` decide, and `names` (of the selector) choose among them.
    """
    train, validation = facts.get("subsets"), list(facts.get("val_subsets", ()))
    if train is None and tuple(names) in ((), ("all",)):
        return _splits_of(folder, everything=bool(names))
    if train is not None and tuple(names) in ((), ("all",)):
        return train, validation
    known = list(dict.fromkeys(subset for subset, _ in train or ()))
    for name in names:
        if train and name not in known:
            raise DataError(f"there is no subset {name!r}", fix=f"the subsets are {', '.join(known)} (or all)")
    chosen = [pair for pair in train if pair[0] in names] if train else [(name, "train") for name in names]
    return chosen, [pair for pair in validation if pair[0] in names]


def _splits_of(folder: Path, *, everything: bool) -> tuple[Pairs | None, Pairs]:
    """Tell training from validation files where names (or the page of the repository) do so."""
    declared = _declared(folder)
    if len(declared) > 1 and "default" not in declared and not everything:
        raise DataError(
            f"dataset folder {folder} has several subsets", fix=f"choose some: NAME:{'/'.join(declared)}, or NAME:all"
        )
    subsets = list(declared) if everything or "default" not in declared else []
    found: list[list[Sequence[str]]] = [
        [(subset, split) for subset in subsets or ["default"] if _files(folder, subset, split)] for split in _OWN
    ]
    train, validation = found
    return (train, validation) if train else (None, [])


def read_subsets(folder: Path, wanted: Iterable[Sequence[str]]) -> Iterator[Record]:
    """Yield the records of each (subset, split) of `wanted`, one after the other.

    Raises `DataError` with a list of what there is when one is not found.
    """
    for subset, split in wanted:
        for file in subset_files(folder, subset, split):
            yield from read_records(file)


def subset_files(folder: Path, subset: str, split: str) -> list[Path]:
    """Return the data files of one subset and split in sorted order, at least one."""
    found = _files(folder, subset, split)
    if not found:
        configs = _declared(folder)
        there = [*configs, *(str(file.relative_to(folder)) for file in _data_files(folder))]
        more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
        raise DataError(
            f"dataset folder {folder} has no subset {subset!r} with a split {split!r}",
            fix=f"there is: {', '.join(there[:_SHOWN]) or 'no data file'}{more}",
        )
    return found


def _files(folder: Path, subset: str, split: str) -> list[Path]:
    configs = _declared(folder)
    return _of_config(folder, configs[subset], split) if subset in configs else _by_name(folder, subset, split)


# --- what the repository says itself --------------------------------------------------------------


def _declared(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return subset -> its entry under `configs:`, or what ModelScope's own file of subsets says."""
    return _of_readme(folder) or _of_modelscope(folder)


def _of_modelscope(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Read `<repository>.json`: {subset: {split: {"meta": "train.csv"}}}."""
    for file in folder.glob("*.json"):
        content = subset_index(file)
        if content is not None:
            return {
                subset: {"data_files": {split: one["meta"] for split, one in splits.items()}}
                for subset, splits in content.items()
            }
    return {}


def _of_readme(folder: Path) -> dict[str, Mapping[str, Any]]:
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    front = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    return _configs(front[1]) if front else {}


@lru_cache(maxsize=8)  # the page of a repository with many subsets takes seconds to parse
def _configs(front_matter: str) -> dict[str, Mapping[str, Any]]:
    import yaml

    try:
        facts = yaml.safe_load(front_matter)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
        return {}  # what some pages begin with is not YAML, or holds `2020-99-99`; the names of the files are left
    configs = facts.get("configs") if isinstance(facts, dict) else None
    listed = configs if isinstance(configs, list) else []
    entries = [one for one in listed if isinstance(one, dict) and "data_files" in one]
    names = [_text(one.get("config_name", "default")) for one in entries]
    return {name: one for name, one in zip(names, entries, strict=True) if name is not None}


def _text(value: Any) -> str | None:
    """Return a name or a path; one that YAML takes for a number or a date (2020) is text too."""
    return str(value) if isinstance(value, str | int | float | date) else None


def _of_config(folder: Path, config: Mapping[str, Any], split: str) -> list[Path]:
    base = PurePosixPath(_text(config.get("data_dir")) or ".")
    patterns = [base / pattern for pattern in _patterns(config["data_files"], split)]
    # A page cannot name files outside of its repository.
    inside = [str(pattern) for pattern in patterns if not {"..", "/"} & set(pattern.parts)]
    return sorted({file for pattern in inside for file in _matches(folder, pattern) if is_data(file, folder)})


def _matches(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except (ValueError, IndexError, OSError, RecursionError):  # `**x`, `.`, a name too long: no file is called so
        return []


def _patterns(data_files: Any, split: str) -> Iterator[str]:
    """Understand every form of `data_files`: a path, paths, a mapping of splits, a list of split and path."""
    if isinstance(data_files, Mapping):
        data_files = [{"split": name, "path": paths} for name, paths in data_files.items()]
    entries = data_files if isinstance(data_files, list) else [data_files]
    for entry in entries:
        own, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, Mapping) else ("train", entry)
        if own == split:
            listed = paths if isinstance(paths, list) else [paths]
            yield from (text for path in listed if (text := _text(path)) is not None)


# --- by the names of files ------------------------------------------------------------------------


def _by_name(folder: Path, subset: str, split: str) -> list[Path]:
    files = {file.relative_to(folder): file for file in _data_files(folder)}
    of_subset = [path for path in files if _is_of(path, subset)]
    if subset == "default" and not of_subset:
        of_subset = list(files)
    named = [path for path in of_subset if _mentions(path, _SPLITS.get(split, {split}))]
    if split == "train" and not named:  # files that say nothing are for training
        named = [path for path in of_subset if not _mentions(path, _ALL_SPLITS)]
    return [files[path] for path in named]


def _data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if is_data(file, folder))


def _is_of(path: Path, subset: str) -> bool:
    """Whether a file or its folder is called like the subset: as words of the name, `-` and `_` alike."""
    name, words = (re.sub(r"[-\s]", "_", text.lower()) for text in (str(path), subset))
    return re.search(rf"(?<![a-z0-9]){re.escape(words)}(?![a-z0-9])", name) is not None


def _mentions(path: Path, words: Iterable[str]) -> bool:
    """Whether the name of the file or of a folder has one of the words: `db/train-00000-of-00001.parquet`."""
    name = str(path.with_suffix("")).lower()
    return any(re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", name) for word in words)
