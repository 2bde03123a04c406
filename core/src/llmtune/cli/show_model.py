"""`llmtune models show NAME`: what is known about a model, and what it takes to train it on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from llmtune.model.memory import bytes_by_size, device_memory, parameters
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manifest import hub_ids
from llmtune.plugins.requirements import missing_requirements

_GB = 1e9


def show_model(arguments: Sequence[str], prog_name: str, catalogue: Catalogue) -> int:
    """Print the facts of a model, its requirements and an estimate of memory."""
    parser = argparse.ArgumentParser(prog_name, description="Show one model.")
    parser.add_argument("name")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    given = parser.parse_args(arguments)
    facts = known(catalogue.find("model", given.name))
    if given.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print("\n".join(_lines(facts)))
    return 0


def known(entry: Entry) -> dict[str, Any]:
    """Return what `models show --json` prints; memory in bytes, None where the size is not known."""
    facts = entry.facts
    tuner = facts.get("tuner", {})
    count = parameters(str(facts.get("size", "")))
    return {
        "name": entry.name,
        "plugin": f"{entry.plugin.dist} {entry.plugin.version}",
        "family": facts.get("family"),
        "ids": hub_ids(facts),
        "size": facts.get("size"),
        "template": facts.get("template", "jinja"),
        "base": facts.get("base", False),
        "license": facts.get("license"),
        "architectures": facts.get("architectures", []),
        "target_modules": tuner.get("target_modules", []),
        "published_modules": tuner.get("published_modules", {}),
        "dtype": facts.get("dtype"),
        "requires": facts.get("requires", []),
        "missing": [f"{text} ({found})" for text, found in missing_requirements(list(facts.get("requires", ())))],
        "memory": None if count is None else bytes_by_size(count),
    }


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['name']} ({facts['plugin']})"
    modules = ", ".join(facts["target_modules"]) or "all linear layers"
    published = ", ".join(facts["published_modules"])
    rows = {
        "ids": ", ".join(f"{hub}:{repo}" for hub, repo in facts["ids"].items()),
        "family": facts["family"],
        "size": facts["size"],
        "template": facts["template"] + (", a base model" if facts["base"] else ""),
        "target modules": modules + (f"; the published names are known: {published}" if published else ""),
        "architecture": ", ".join(facts["architectures"]),
        "dtype": facts["dtype"],
        "licence": facts["license"],
        "requires": ", ".join(facts["requires"]),
        "missing": ", ".join(facts["missing"]),
    }
    yield from (f"  {title:15} {text}" for title, text in rows.items() if text)
    if facts["memory"]:
        yield from _memory(facts["memory"])


def _memory(needed: dict[str, int]) -> Iterator[str]:
    there, device = device_memory()
    yield f"  memory          for weights, gradients and optimizer; {device} has {there / _GB:.0f} GB"
    for way, size in needed.items():
        yield f"    {way:6} {size / _GB:8.1f} GB  {'fits, activations come on top' if size < there else 'does not fit'}"
