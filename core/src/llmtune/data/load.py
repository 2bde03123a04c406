"""From the selectors of a run to rows: find, read, preprocess, sample, split."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmtune.data.files import SOURCE
from llmtune.data.report import DataReport
from llmtune.data.selector import Selector, parse_selector
from llmtune.errors import DataError, UnknownName, UsageError, did_you_mean
from llmtune.interfaces.preprocessor import Preprocessor
from llmtune.model.fetch import Fetcher, match_hub
from llmtune.plugins.catalogue import BUILTIN, Catalogue, Entry
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.manifest import hub_ids
from llmtune.specs import DatasetSpec, Row, RunContext, SplitRecords


@dataclass(frozen=True, kw_only=True)
class SelectedDataset:
    """A selector with the catalogue entries that answer it."""

    selector: Selector
    entry: Entry
    """Its row; core's `file` row for paths and unregistered repositories."""
    preprocessor: Entry


@dataclass(kw_only=True)
class Rows:
    """The rows of a run."""

    train: list[Row] = field(default_factory=list)
    validation: list[Row] = field(default_factory=list)


def select_dataset(text: str, catalogue: Catalogue) -> SelectedDataset:
    """Resolve a selector to entries; raise `UnknownName` for one that is neither a name, a path nor an id."""
    selector = parse_selector(text)
    if selector.subsets:
        raise UsageError(
            f"dataset {selector.text!r}: subsets ({'/'.join(selector.subsets)}) are not available yet",
            fix=f"write {selector.name!r} for all of it, or the path of one file",
        )
    entry = _dataset_entry(selector, catalogue)
    name = entry.facts.get("preprocessor", "auto")
    return SelectedDataset(selector=selector, entry=entry, preprocessor=_preprocessor_entry(name, entry, catalogue))


def _preprocessor_entry(name: str, entry: Entry, catalogue: Catalogue) -> Entry:
    """A plugin's dataset means its own preprocessor first."""
    own = entry.plugin.manifest.tables.get("preprocessor", {})
    return catalogue.find("preprocessor", f"{entry.plugin.name}::{name}" if name in own else name)


def _dataset_entry(selector: Selector, catalogue: Catalogue) -> Entry:
    files = catalogue.find("dataset", f"{BUILTIN}::file")
    if selector.path is not None:
        return files
    hub = match_hub(selector.hub, catalogue) if selector.hub else None
    known = catalogue.get("dataset", selector.name) if selector.hub is None or hub else None
    known = known or _by_hub_id(selector.name, catalogue)
    if known is not None:
        return known
    if selector.hub and hub is None:
        return catalogue.find("dataset", f"{selector.hub}::{selector.name}")
    if hub is not None or (selector.name.count("/") == 1 and not selector.name.endswith(_DATA_SUFFIXES)):
        return files
    if "/" in selector.name or selector.name.endswith(_DATA_SUFFIXES):
        raise DataError(
            f"dataset {selector.text!r}: no such file or folder: {selector.name}",
            fix="check the path; relative paths start where you stand",
        )
    raise _unknown(selector, catalogue)


_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")


def _unknown(selector: Selector, catalogue: Catalogue) -> Exception:
    try:
        catalogue.find("dataset", selector.name)
    except UnknownName as error:
        if not did_you_mean(selector.name, catalogue.names("dataset")) and "pip install" not in error.fix:
            error.fix = f"{error.fix}; a file needs its path, a repository its owner/name"
        return error
    raise AssertionError(selector)


def _by_hub_id(name: str, catalogue: Catalogue) -> Entry | None:
    return next((entry for entry in catalogue.entries("dataset") if name in hub_ids(entry.facts).values()), None)


class RowLoader:
    """Reads selected datasets into rows. One per run; `report` counts what is left out."""

    def __init__(
        self, manager: PluginManager, fetcher: Fetcher, run: RunContext, options: Any, report: DataReport
    ) -> None:
        self.manager, self.fetcher, self.run, self.report = manager, fetcher, run, report
        self._options = options
        """(kind, name) -> validated options, `CommandConfig.options`."""

    def load(
        self, train: Sequence[SelectedDataset], validation: Sequence[SelectedDataset], *, test_ratio: float, seed: int
    ) -> Rows:
        """Read all datasets. Each is sampled and split on its own, so adding one moves no other's split."""
        rows = Rows()
        for selected in validation:
            rows.validation += sample(self.read(selected), selected.selector.sample, seed)
        for selected in train:
            read, own = self.parts(selected)
            ratio = 0.0 if validation or own else test_ratio
            kept, held_out = divide(read, selected.selector.sample, ratio, seed)
            rows.train += kept
            rows.validation += own if own and not validation else held_out
        return rows

    def read(self, selected: SelectedDataset) -> list[Row]:
        """Return all usable rows of one dataset, in order; raise `DataError` when there is none."""
        return self.parts(selected)[0]

    def parts(self, selected: SelectedDataset) -> tuple[list[Row], list[Row]]:
        """Return (rows, rows that the dataset itself keeps for validation)."""
        preprocess, report = self._preprocessor(selected.preprocessor), DataReport()
        records = self._records(selected)
        rows, own = (
            [row for record in part if (row := _row(preprocess, record, report)) is not None]
            for part in (records.train, records.validation)
        )
        self.report.add(report)
        if not rows:
            raise _empty(selected, report)
        return rows, own

    def _preprocessor(self, entry: Entry) -> Preprocessor:
        options = self._options(entry.kind, entry.name)
        created: Preprocessor = self.manager.provide(
            "llmtune_create_preprocessor", entry, name=entry.name, options=options, run=self.run
        )
        return created

    def _records(self, selected: SelectedDataset) -> SplitRecords:
        selector, entry = selected.selector, selected.entry
        spec = DatasetSpec(name=entry.name, facts=entry.facts, path=self._path(selected), sample=selector.sample)
        found = self.manager.provide("llmtune_load_dataset", entry, spec=spec, split="train", run=self.run)
        return found if isinstance(found, SplitRecords) else SplitRecords(train=found)

    def _path(self, selected: SelectedDataset) -> Any:
        selector, entry = selected.selector, selected.entry
        if selector.path is not None:
            return selector.path
        if "file" in entry.facts:  # beside the manifest, or an absolute path of a local plugin
            manifest = entry.plugin.manifest_path
            return (manifest.parent if manifest else Path()) / entry.facts["file"]
        ids = hub_ids(entry.facts) if entry.name != "file" else {}
        if not ids and entry.name != "file":
            return None  # the owner's hook brings the records
        return self.fetcher.fetch(selector.name, kind="dataset", ids=ids, hub=selector.hub).folder


def _row(preprocess: Preprocessor, record: Mapping[str, Any], report: DataReport) -> Row | None:
    report.read += 1
    source = str(record.get(SOURCE, f"record {report.read}"))
    try:
        row = preprocess(record)
    except (ValueError, KeyError, TypeError) as error:
        report.drop(f"no column {error}" if isinstance(error, KeyError) else str(error), source)
        return None
    if row is None:
        report.read -= 1  # left out on purpose: not part of the dataset
        return None
    return {**row, "source": row.get("source", source)}


def _empty(selected: SelectedDataset, report: DataReport) -> DataError:
    if not report.dropped:
        return DataError(f"dataset {selected.selector.text!r} is empty", fix="check that the file holds rows")
    return DataError(f"dataset {selected.selector.text!r} has no usable row", fix="\n  ".join(report.lines()[1:]))


def sample(rows: list[Row], count: int | None, seed: int) -> list[Row]:
    """Draw `count` rows without replacement; a larger count repeats whole passes first."""
    if count is None:
        return rows
    passes, rest = divmod(count, len(rows))
    return rows * passes + random.Random(seed).sample(rows, rest)


def draw(rows: list[Row], count: int | None, seed: int) -> list[Row]:
    """Draw from all rows together, as --train_dataset_sample does; more than there are means all."""
    return rows if count is None or not 0 <= count < len(rows) else sample(rows, count, seed)


def split(rows: list[Row], ratio: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Return (train, validation): at least one row each when `ratio` is above 0 and there are two rows."""
    count = min(max(1, round(len(rows) * ratio)), len(rows) - 1) if ratio > 0 and len(rows) > 1 else 0
    held_out = set(random.Random(seed).sample(range(len(rows)), count))
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [rows[index] for index in sorted(held_out)]


def divide(rows: list[Row], count: int | None, ratio: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Sample `count` rows and split them. Rows are repeated after the split: none is in both parts."""
    if count is None or count <= len(rows):
        return split(sample(rows, count, seed), ratio, seed)
    train, validation = split(rows, ratio, seed)
    return sample(train, count - len(validation), seed), validation
