"""The samples of a training run: encoded before it, while it goes on, or read as a stream."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import Any

from llmtune.config.commands import SftConfig
from llmtune.data.encode import CHUNK, Encoder, encode_rows
from llmtune.data.lazy import LazyRows
from llmtune.data.load import Rows
from llmtune.data.packing import PackedRows, pack
from llmtune.data.report import DataReport
from llmtune.data.select import SelectedDataset
from llmtune.data.spool import Line, Selection, Spool, spooled
from llmtune.data.stream import Stream, interleaved
from llmtune.errors import DataError
from llmtune.pipelines.data import encode, row_loader
from llmtune.pipelines.prepare import Prepared
from llmtune.specs import Encoded


@dataclass(kw_only=True)
class TrainingData:
    """What a backend trains on and validates with."""

    train: Sequence[Encoded] | Stream
    validation: Sequence[Encoded]
    steps: int
    """Optimizer steps of the run."""
    report: DataReport
    is_complete: bool = True
    """Whether every row has been encoded, so that the report says all."""
    unit: str = "rows"
    questions: Selection | None = None
    """The rows of `validation` as they were read, where they are answered too (--predict_with_generate)."""
    lengths: Sequence[int] | None = None
    """Tokens of each of `train`, where they are known; in a dry run those of a stream's first rows."""
    sources: Callable[[int], list[str]] | None = None
    """Number of a sample of `train` -> where its rows came from; None for a stream, whose samples say it."""
    rows: Callable[[], Iterator[Line]] | None = None
    """Starts to read all rows that the run is made of, in its order; None for a stream."""
    max_dropped: int = field(default=0)
    """Rows that may turn out to be unusable while the model trains."""

    def left_out(self, reason: str, source: str) -> None:
        """Count a row that was found out late; raise `DataError` once there are too many."""
        self.report.read_late(reason, source, limit=self.max_dropped)

    def tokens_in_a_step(self, rows: int) -> float | None:
        """Return how many tokens `rows` rows have on average, None where lengths are not known."""
        return None if not self.lengths else sum(self.lengths) / len(self.lengths) * min(rows, len(self.lengths))

    def described(self) -> str:
        """Return how much there is, for the dry run."""
        train = "a stream" if isinstance(self.train, Stream) else f"{len(self.train)} training {self.unit}"
        return f"{train}, {len(self.validation)} validation rows"


def training_data(
    prepared: Prepared[SftConfig], rows: Rows | None, encoder: Encoder, report: DataReport
) -> TrainingData:
    """Return the samples as the flags ask for them; show what was left out, and fail when that is too much."""
    if rows is None:
        return _streamed(prepared, encoder, report)
    config = prepared.config
    needs_lengths = config.preprocessing.packing or config.template.truncation_strategy == "split"
    if config.preprocessing.lazy_tokenize and encoder.template.several_samples:
        prepared.run.say("note: rows are encoded first: with the model's own chat template some may be several samples")
    elif config.preprocessing.lazy_tokenize and not needs_lengths:
        return _lazy(prepared, rows, encoder, report)
    return _eager(prepared, rows, encoder, report)


def _eager(prepared: Prepared[SftConfig], rows: Rows, encoder: Encoder, report: DataReport) -> TrainingData:
    config = prepared.config
    train, validation = encode(prepared, rows, encoder, report)
    questions = _questions(prepared, rows.validation)
    _show(prepared, report)
    if not train:
        raise DataError("no row is left to train on", fix="\n  ".join(report.lines()))

    def source_of(number: int) -> str:
        chunk, row = train.row_of(number)
        return rows.train[chunk * CHUNK + row]["source"]

    if not config.preprocessing.packing:
        return TrainingData(
            rows=_identity_rows(prepared, rows),
            train=train,
            validation=validation,
            steps=planned_steps(prepared, len(train)),
            report=report,
            questions=questions,
            lengths=array("i", train.lengths.tolist()),
            sources=lambda number: [source_of(number)],
        )
    packs = pack(train.lengths, config.template.max_length)
    share = report_share(train.lengths, len(packs), config.template.max_length)
    prepared.run.say(
        f"packed {len(train)} rows into {len(packs)} sequences of {config.template.max_length} tokens ({share})"
    )
    packed = PackedRows(train, packs)
    return TrainingData(
        rows=_identity_rows(prepared, rows),
        train=packed,
        validation=validation,
        steps=planned_steps(prepared, len(packed)),
        report=report,
        unit="packs",
        questions=questions,
        lengths=array("i", (int(train.lengths[one].sum()) for one in packs)),
        sources=lambda number: [source_of(one) for one in packs[number]],
    )


def _identity_rows(prepared: Prepared[SftConfig], rows: Rows) -> Callable[[], Iterator[Line]]:
    """What is validated with belongs to it where it is split off the training data."""
    split_off = [] if prepared.choices.validation else [rows.validation]
    return lambda: chain.from_iterable(part.lines() for part in (rows.train, *split_off))


def _questions(prepared: Prepared[SftConfig], validation: Selection) -> Selection | None:
    """Return the validation rows in a spool of their own: that of all rows may be large, and is given back."""
    return spooled(validation) if prepared.config.evaluation.predict_with_generate else None


def report_share(lengths: Any, packs: int, size: int) -> str:
    """Return how full packs are."""
    return f"{sum(map(int, lengths)) / (packs * size):.1%} full"


def _lazy(prepared: Prepared[SftConfig], rows: Rows, encoder: Encoder, report: DataReport) -> TrainingData:
    """Validation rows are few and read many times: they are encoded at once."""
    validation = encode_rows(rows.validation.lines(), encoder, report)
    tried = _first_lengths(prepared, rows.train.lines(), encoder, report)
    report.train, report.validation, report.duplicates = len(rows.train), len(validation), rows.train.copies()
    _show(prepared, report)
    return TrainingData(
        rows=_identity_rows(prepared, rows),
        train=LazyRows(rows.train, encoder),
        validation=validation,
        lengths=tried,
        steps=planned_steps(prepared, len(rows.train)),
        report=report,
        is_complete=False,
        questions=_questions(prepared, rows.validation),
        max_dropped=int(prepared.config.data.max_dropped_ratio * len(rows.train)),
    )


def _streamed(prepared: Prepared[SftConfig], encoder: Encoder, report: DataReport) -> TrainingData:
    """The first --streaming_val_size rows are kept for validation, beside --val_dataset."""
    config, held_out = prepared.config, prepared.config.preprocessing.streaming_val_size
    lines = partial(_lines, prepared, prepared.choices.train)
    own_report = DataReport(strategy=report.strategy)
    first = islice(lines(own_report), held_out)
    given = _chained(prepared, prepared.choices.validation, own_report)
    held = Spool()
    for line, source in chain(given, first):
        held.append_line(line, source)
    validation = encode_rows(held[:].lines(), encoder, report)
    report.validation = len(validation)
    stream = Stream(
        lines=lambda: islice(lines(report), held_out, None),
        encoder=encoder,
        report=report,
        max_dropped_ratio=config.data.max_dropped_ratio,
        buffer_size=config.preprocessing.streaming_buffer_size,
        seed=config.training.seed,
        pack_to=config.template.max_length if config.preprocessing.packing else None,
        workers=config.preprocessing.preprocess_num_proc,
    )
    prepared.run.say(f"streaming; {len(validation)} rows to validate")
    tried = _first_lengths(prepared, stream.lines(), encoder, report)
    if tried is not None:
        report.train = len(tried)
        _show(prepared, report)
    return TrainingData(
        train=stream,
        validation=validation,
        lengths=None if config.preprocessing.packing else tried,
        steps=config.training.max_steps,
        report=report,
        is_complete=False,
        unit="packs" if config.preprocessing.packing else "rows",
        questions=_questions(prepared, held[:]),
    )


def _first_lengths(
    prepared: Prepared[SftConfig], lines: Iterator[Line], encoder: Encoder, report: DataReport
) -> Sequence[int] | None:
    """Encode the first rows of what is else encoded while the model trains, so that a dry run finds what is wrong.

    Return their lengths; None where the run is no dry run.
    """
    if not prepared.config.rehearsal.dry_run:
        return None
    first = encode_rows(islice(lines, CHUNK), encoder, report)
    if not first:
        raise DataError("no row is left to train on", fix="\n  ".join(report.lines()))
    prepared.run.say(f"{len(first)} rows were encoded to try them; the run encodes while it trains")
    return array("i", first.lengths.tolist())


def _lines(prepared: Prepared[SftConfig], selected: Sequence[SelectedDataset], report: DataReport) -> Iterator[Line]:
    """Yield the rows of all training datasets, one after the other or interleaved."""
    data = prepared.config.data
    if not data.interleave_prob:
        return _chained(prepared, selected, report)
    sources = [partial(_chained, prepared, [one], report) for one in selected]
    seed = data.dataset_seed or 0
    return interleaved(sources, data.interleave_prob, until=data.stopping_strategy, seed=seed)


def _chained(prepared: Prepared[SftConfig], selected: Sequence[SelectedDataset], report: DataReport) -> Iterator[Line]:
    loader = row_loader(prepared, report)
    return chain.from_iterable(map(loader.stream, selected))


def _show(prepared: Prepared[SftConfig], report: DataReport) -> None:
    report.check_dropped(prepared.config.data.max_dropped_ratio)
    for line in report.lines(histogram=len(report.lengths) > 1):
        prepared.run.say(line)


def planned_steps(prepared: Prepared[SftConfig], rows: int) -> int:
    """Return the number of optimizer steps; raise `DataError` when the rows fill none."""
    training, distributed = prepared.config.training, prepared.config.distributed
    batch = training.batch_size * distributed.readers(prepared.run.world_size)
    if training.dataloader_drop_last and rows < batch:
        raise DataError(
            f"{rows} rows fill no batch of {batch}, and --dataloader_drop_last leaves out batches that are not full",
            fix="lower --batch_size, or --dataloader_drop_last false",
        )
    if training.max_steps > 0:
        return training.max_steps
    used = rows - rows % batch if training.dataloader_drop_last else rows
    step = batch * (training.gradient_accumulation_steps or 1)
    return math.ceil(used / step) * training.num_train_epochs
