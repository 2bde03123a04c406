"""Show rows as the model will see them: ids, text, what is trained on and with which weight."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from llmtune.config.commands import InspectConfig
from llmtune.config.environment import terminal_width
from llmtune.data.encode import encode_rows
from llmtune.data.load import RowLoader, draw
from llmtune.data.report import DataReport
from llmtune.errors import UsageError
from llmtune.interfaces.template import Template
from llmtune.pipelines.prepare import Prepared, find_model, load_model, make_template, prepare, row_loader
from llmtune.plugins.catalogue import Catalogue
from llmtune.specs import Encoded, Row

_STYLES = {"control": "bold magenta", "trained": "green", "masked": "dim"}


def inspect(config: InspectConfig, catalogue: Catalogue) -> None:
    """Encode the chosen rows with the model's tokenizer and print them in colour; loads no weights."""
    if not config.data.dataset:
        raise UsageError("no dataset was chosen", fix="add --dataset NAME_OR_FILE")
    prepared = prepare("inspect", config, catalogue)
    report, section = DataReport(), config.inspection
    loader = row_loader(prepared, report)
    rows = load_rows(prepared, loader)
    tokenizer = load_model(prepared, find_model(prepared, weights=False), weights=False).tokenizer
    _, template = make_template(prepared, tokenizer)
    console = Console(width=terminal_width() or None, highlight=False, soft_wrap=True)
    if section.row >= len(rows):
        raise UsageError(f"--row {section.row}: the data has {len(rows)} rows, counted from 0")
    for number in range(section.row, min(section.row + section.rows, len(rows))):
        encoded = encode(prepared, rows[number], template)
        if isinstance(encoded, str):
            console.print(f"row {number} is left out: {encoded}", markup=False, style="bold red")
        else:
            show_row(console, number, rows[number]["source"], encoded, tokenizer, ids=section.ids)
    for line in report.lines()[1:]:
        console.print(line, markup=False)
    console.print(_legend())


def load_rows(prepared: Prepared[InspectConfig], loader: RowLoader) -> list[Row]:
    """Return the training rows, then those of --val_dataset."""
    data, seed = prepared.config.data, prepared.config.data.dataset_seed or 0
    rows = loader.load(prepared.choices.train, prepared.choices.validation, test_ratio=0.0, seed=seed)
    train = draw(rows.train, data.train_dataset_sample, seed)
    return [*train, *draw(rows.validation, data.val_dataset_sample, seed)]


def encode(prepared: Prepared[InspectConfig], row: Row, template: Template) -> Encoded | str:
    """Encode one row as training would; a text says why training would leave it out."""
    report, section = DataReport(), prepared.config.template
    limits: dict[str, Any] = {"max_length": section.max_length, "truncation": section.truncation_strategy}
    encoded = encode_rows([row], template, report=report, **limits)
    return encoded[0] if encoded else next(place for places in report.examples.values() for place in places)


def show_row(console: Console, number: int, source: str, encoded: Encoded, tokenizer: Any, *, ids: bool) -> None:
    """Print one row: text with control tokens, trained and masked text told apart, then the ids."""
    targets = sum(label != -100 for label in encoded["labels"])
    console.print(
        f"row {number} ({source}): {len(encoded['input_ids'])} tokens, {targets} trained",
        markup=False,
        style="bold",
    )
    console.print(_text(encoded, tokenizer))
    if ids:
        console.print(_ids(encoded, tokenizer))
    if "loss_weights" in encoded:
        weights = sorted(
            {weight for weight, label in zip(encoded["loss_weights"], encoded["labels"], strict=True) if label != -100}
        )
        console.print(f"weights of trained tokens: {', '.join(map(str, weights))}")
    else:
        console.print("weights of trained tokens: 1")


def _kind(token: int, label: int, control: set[int]) -> str:
    return "control" if token in control and label == -100 else "trained" if label != -100 else "masked"


def _runs(encoded: Encoded, tokenizer: Any) -> list[tuple[str, list[int]]]:
    """Group neighbouring tokens of one kind; characters of several tokens stay whole."""
    control = set(tokenizer.get_added_vocab().values())
    runs: list[tuple[str, list[int]]] = []
    for token, label in zip(encoded["input_ids"], encoded["labels"], strict=True):
        kind = _kind(token, label, control)
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(token)
        else:
            runs.append((kind, [token]))
    return runs


def _text(encoded: Encoded, tokenizer: Any) -> Text:
    text = Text()
    for kind, tokens in _runs(encoded, tokenizer):
        text.append(tokenizer.decode(tokens, skip_special_tokens=False), style=_STYLES[kind])
    return text


def _ids(encoded: Encoded, tokenizer: Any) -> Text:
    text = Text()
    for kind, tokens in _runs(encoded, tokenizer):
        text.append(" ".join(map(str, tokens)) + " ", style=_STYLES[kind])
    return text


def _legend() -> Text:
    return Text.assemble(*((f"{kind} ", style) for kind, style in _STYLES.items()))
