"""The model card of a run, from the flags that it was made with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmtune.config.build import default_sections
from llmtune.config.commands import SftConfig
from llmtune.config.source import option_names
from llmtune.plugins.catalogue import Catalogue, Entry
from llmtune.plugins.manifest import hub_ids
from llmtune.train.model_card import ModelCard
from llmtune.train.publish import Destination
from llmtune.train.published_files import without_local_paths

_SETTINGS = (
    *("dtype", "template_type", "max_length", "seed", "num_train_epochs", "max_steps", "batch_size"),
    *("gradient_accumulation_steps", "learning_rate", "lr_scheduler_type", "weight_decay"),
)
"""What the page tells in any case."""
_UNTOLD = (
    *("invocation", "plugins", "hub", "data", "model", "rehearsal", "saving", "upload", "tracking", "distributed"),
    *("generation", "weights", "evaluation"),
)
"""Sections whose flags say nothing about what was learned."""
_UNTOLD_FLAGS = ("lazy_tokenize", "preprocess_num_proc", "dataloader_num_workers", "dataloader_pin_memory")


def model_card(values: Mapping[str, Any], to: Destination, catalogue: Catalogue) -> ModelCard:
    """Return the page; `values` is the content of sft_args.json. Ids are those of the hub that it is for."""
    hub = catalogue.find("hub", to.calls.hub)
    key = str(hub.facts.get("key", hub.name))
    model, tuner = _get(catalogue, "model", values.get("model_type")), _get(catalogue, "tuner", values.get("sft_type"))
    named = values.get("model_id_or_path")
    shared = without_local_paths(named) if named else None
    repository = named.rpartition("::")[2] if named and shared == named else None
    registered = hub_ids(model.facts).get(key) if model and not named else None  # a folder may hold anything
    datasets = [str(name) for name in without_local_paths(values.get("dataset", []))]
    template = _get(catalogue, "template", values.get("template_type"))
    return ModelCard(
        title=to.repo.rpartition("/")[2],
        base=str(values.get("model_type") or shared or "unknown"),
        base_id=repository or registered,
        tuner=str(values.get("sft_type") or "unknown"),
        datasets=datasets,
        dataset_ids=list(_ids(datasets, key, catalogue)),
        packages=sorted({"llmtune", *(entry.plugin.dist for entry in (model, tuner, template) if entry)}),
        settings=without_local_paths(dict(_settings(values, tuner))),
    )


def _get(catalogue: Catalogue, kind: str, name: Any) -> Entry | None:
    return catalogue.get(kind, name) if isinstance(name, str) else None


def _ids(datasets: list[str], key: str, catalogue: Catalogue) -> Iterator[str]:
    for text in datasets:
        entry = catalogue.get("dataset", text.partition("#")[0].partition(":")[0])
        found = hub_ids(entry.facts).get(key) if entry else None
        if found:
            yield found


def _settings(values: Mapping[str, Any], tuner: Entry | None) -> Iterator[tuple[str, Any]]:
    """Yield the flags that say most, those of the tuner, and the others that are not at their defaults."""
    options = option_names(tuner) if tuner else []
    for flag in (*_SETTINGS, *options):
        if values.get(flag) not in (None, -1, []):
            yield flag, values[flag]
    for name, part in default_sections(SftConfig).items():
        for flag, default in part.model_dump(mode="json").items() if name not in _UNTOLD else ():
            if flag in values and flag not in (*_SETTINGS, *_UNTOLD_FLAGS) and values[flag] != default:
                yield flag, values[flag]
