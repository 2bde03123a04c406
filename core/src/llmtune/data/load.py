"""From selected datasets to the rows of a run: find, read, preprocess, sample, split, mix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmtune.data import mix
from llmtune.data.columns import IGNORED
from llmtune.data.opening import PROBLEM, SOURCE
from llmtune.data.report import DataReport
from llmtune.data.select import SelectedDataset
from llmtune.data.spool import Line, Selection, Spool, to_line, to_row
from llmtune.data.suspicious import suspicion
from llmtune.errors import DataError, LlmtuneError, UsageError
from llmtune.interfaces.preprocessor import Preprocessor
from llmtune.model.fetch import Fetcher
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.manifest import hub_ids
from llmtune.specs import DatasetSpec, Row, RunContext, SplitRecords


@dataclass(kw_only=True)
class Rows:
    """The rows of a run."""

    train: Selection
    validation: Selection


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How the datasets of a run are put together."""

    test_ratio: float = 0.0
    """Share of each training dataset that is kept for validation, where nothing else is."""
    seed: int = 42
    weights: Sequence[float] = ()
    """Probability of each training dataset to bring the next row; none: one dataset after the other."""
    until: str = "first_exhausted"
    general: Sequence[SelectedDataset] = ()
    """Datasets to mix in (--train_dataset_mix_ds)."""
    general_ratio: float = 0.0
    """Rows of `general` for each training row."""


@dataclass
class RowLoader:
    """Reads selected datasets into rows. One per run; `report` counts what is left out."""

    manager: PluginManager
    fetcher: Fetcher
    run: RunContext
    options: Any
    """(kind, name) -> validated options, `CommandConfig.options`."""
    report: DataReport
    columns: Mapping[str, str] = field(default_factory=dict)
    """The user's names for columns (--columns); they go before those of a manifest."""
    spool: Spool = field(default_factory=Spool)

    def load(self, train: Sequence[SelectedDataset], validation: Sequence[SelectedDataset], mixing: Mixing) -> Rows:
        """Read all datasets. Each is sampled and split on its own, so adding one moves no other's split."""
        held_out = [self._sampled(one, mixing.seed) for one in validation]
        parts: list[Selection] = []
        for selected in train:
            rows, own = self.parts(selected)
            self._say_what_is_repeated(selected, rows)
            ratio = 0.0 if validation or own else mixing.test_ratio
            kept, split_off = mix.divide(len(rows), selected.selector.sample, ratio, mixing.seed)
            parts.append(rows.take(kept))
            held_out += [] if validation else [own if own else rows.take(split_off)]
        parts = [self._interleaved(parts, mixing)] if mixing.weights else parts
        if mixing.general_ratio:
            parts.append(self._general(mixing, round(sum(map(len, parts)) * mixing.general_ratio)))
        return Rows(train=self._joined(parts), validation=self._joined(held_out))

    def read(self, selected: SelectedDataset) -> Selection:
        """Return all usable rows of one dataset, in order; raise `DataError` when there is none."""
        return self.parts(selected)[0]

    def parts(self, selected: SelectedDataset) -> tuple[Selection, Selection]:
        """Return (rows, rows that the dataset itself keeps for validation)."""
        report = DataReport(strategy=self.report.strategy, seen=self.report.seen)
        preprocess, records = self.preprocessor(selected), self.records(selected)
        rows, own = (self._spooled(preprocess, part, report) for part in (records.train, records.validation))
        report.unused = (
            {selected.selector.text: sorted(unused)} if (unused := getattr(preprocess, "unused", ())) else {}
        )
        self.report.add(report)
        if not rows:
            raise _empty(selected, report)
        return rows, own

    def stream(self, selected: SelectedDataset) -> Iterator[Line]:
        """Yield the usable rows of one dataset as they are read, as lines; `#n` takes the first n."""
        preprocess, records = self.preprocessor(selected), self.records(selected)
        limit, count = selected.selector.sample, 0
        for line in usable_lines(preprocess, records.train, self.report):
            if count == limit:
                return
            count += 1
            yield line
        if count == 0:
            raise _empty(selected, self.report)

    def _spooled(self, preprocess: Preprocessor, records: Iterable[Mapping[str, Any]], report: DataReport) -> Selection:
        start = len(self.spool)
        for line, source in usable_lines(preprocess, records, report):
            self.spool.append_line(line, source)
        return self.spool[start:]

    def _say_what_is_repeated(self, selected: SelectedDataset, rows: Selection) -> None:
        wanted = selected.selector.sample or 0
        if wanted > len(rows):
            text = f"{wanted:,} rows are asked for, and there are {len(rows):,}: they are repeated"
            self.run.say(f"note: --dataset {selected.selector.text}: {text}")

    def _sampled(self, selected: SelectedDataset, seed: int) -> Selection:
        rows = self.read(selected)
        self._say_what_is_repeated(selected, rows)
        return rows.take(mix.sample(len(rows), selected.selector.sample, seed))

    def _interleaved(self, parts: Sequence[Selection], mixing: Mixing) -> Selection:
        order = mix.interleave([len(part) for part in parts], mixing.weights, until=mixing.until, seed=mixing.seed)
        return self._joined(parts).take(order)

    def _general(self, mixing: Mixing, count: int) -> Selection:
        rows = self._joined([self.read(one) for one in mixing.general])
        return rows.take(mix.sample(len(rows), count, mixing.seed))

    def _joined(self, parts: Sequence[Selection]) -> Selection:
        return Selection(self.spool, np.concatenate([np.empty(0, dtype=np.int64), *(part.numbers for part in parts)]))

    # --- one dataset ------------------------------------------------------------------------------

    def preprocessor(self, selected: SelectedDataset) -> Preprocessor:
        """Build the dataset's preprocessor, renaming of columns included."""
        entry, spec = selected.preprocessor, self.spec(selected)
        created: Preprocessor = self.manager.provide(
            "llmtune_create_preprocessor",
            entry,
            name=entry.name,
            options=self.options(entry.kind, entry.name),
            spec=spec,
            run=self.run,
        )
        knows_columns = hasattr(created, "columns")
        return created if knows_columns or not spec.columns else _renaming(spec.columns, created)

    def records(self, selected: SelectedDataset) -> SplitRecords:
        """Ask the dataset's owner for its records."""
        spec = self.spec(selected, self._path(selected))
        found = self.manager.provide("llmtune_load_dataset", selected.entry, spec=spec, split="train", run=self.run)
        return found if isinstance(found, SplitRecords) else SplitRecords(train=found)

    def spec(self, selected: SelectedDataset, path: Path | None = None) -> DatasetSpec:
        selector, entry = selected.selector, selected.entry
        return DatasetSpec(
            name=entry.name,
            facts=entry.facts,
            path=path,
            sample=selector.sample,
            subsets=selector.subsets,
            columns={**entry.facts.get("columns", {}), **self.columns},
        )

    def _path(self, selected: SelectedDataset) -> Path | None:
        selector, entry = selected.selector, selected.entry
        if selector.path is not None:
            return selector.path
        if "file" in entry.facts:  # beside the manifest, or an absolute path of a local plugin
            manifest = entry.plugin.manifest_path
            return (manifest.parent if manifest else Path()) / str(entry.facts["file"])
        ids = hub_ids(entry.facts) if entry.name != "file" else {}
        if not ids and entry.name != "file":
            return None  # the owner's hook brings the records
        revision = entry.facts.get("revision")
        return self.fetcher.fetch(selector.name, kind="dataset", ids=ids, hub=selector.hub, revision=revision).folder


def _renaming(columns: Mapping[str, str], preprocess: Preprocessor) -> Preprocessor:
    def renamed(record: Mapping[str, Any]) -> Row | list[Row] | None:
        names = {column: columns.get(column, column) for column in record}
        return preprocess({name: record[column] for column, name in names.items() if name != IGNORED})

    return renamed


def usable_rows(preprocess: Preprocessor, records: Iterable[Mapping[str, Any]], report: DataReport) -> Iterator[Row]:
    """Yield what the records become; what cannot be used is counted in `report`, with its place."""
    return (to_row(line, source) for line, source in usable_lines(preprocess, records, report))


def usable_lines(preprocess: Preprocessor, records: Iterable[Mapping[str, Any]], report: DataReport) -> Iterator[Line]:
    """Like `usable_rows`, as lines of JSON."""
    if not isinstance(records, Iterable):
        raise UsageError(f"a dataset's function must return rows, found {records!r}", fix="return a list of mappings")
    for number, record in enumerate(records, start=1):
        report.read += 1
        source = str(record.get(SOURCE, f"record {number}"))
        try:
            lines = [(to_line(row), str(row.get("source", source)), row) for row in _rows(preprocess, record)]
        except (LlmtuneError, OSError):
            raise
        except Exception as error:  # a preprocessor is somebody's function, and a row may be anything
            report.drop(_reason(error), source)
            continue
        report.read += len(lines) - 1  # none means left out on purpose: no part of the dataset
        for line, place, row in lines:
            if report.strategy == "none" or not _is_objected_to(row, line, place, report):
                yield line, place


def _rows(preprocess: Preprocessor, record: Mapping[str, Any]) -> list[Row]:
    if PROBLEM in record:
        raise ValueError(record[PROBLEM])
    found = preprocess(record)
    rows = found if isinstance(found, list) else [] if found is None else [found]
    if not all(isinstance(row.get("messages"), list) for row in rows):
        raise ValueError("its preprocessor made no messages of it")
    return rows


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"no column {error}"
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _is_objected_to(row: Row, line: bytes, source: str, report: DataReport) -> bool:
    """Whether a strict check leaves the row out."""
    odd = suspicion(row) or report.seen_before(line)
    return odd is not None and report.object_to(odd, source)


def _empty(selected: SelectedDataset, report: DataReport) -> DataError:
    text = selected.selector.text
    if not report.dropped:
        return DataError(f"dataset {text!r} is empty", fix="check that the file holds rows")
    return DataError(f"dataset {text!r} has no usable row", fix="\n  ".join(report.dropped_lines()))
