"""Build things the way a run does: by name, through their hook, with validated options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from llmtune.config.build import make_section, options_class
from llmtune.config.section import Section
from llmtune.data.load import RowLoader, usable_rows
from llmtune.data.report import DataReport
from llmtune.data.select import select_dataset
from llmtune.errors import UsageError
from llmtune.interfaces.template import Template
from llmtune.model.fetch import Fetcher
from llmtune.plugins.catalogue import Catalogue, Entry, discover
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.requirements import check_requirements
from llmtune.specs import DatasetSpec, Row, RunContext, RunPlan, TemplateSpec, ToolsPromptSpec
from llmtune.template.tools_prompt import find_tools_prompt


def run_context(command: str = "sft", *, steps: int | None = None, **plan: Any) -> RunContext:
    """Return a run without a folder; keywords are fields of `RunPlan`, such as `quantization_bit=4`."""
    return RunContext(plan=RunPlan(command=command, **plan), steps=steps)


def create(
    kind: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    run: RunContext | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """Build the tuner, trainer, engine, hub, quantizer, metric or preprocessor `name` of an installed plugin.

    `arguments` are those of a dataset's manifest, for preprocessors. `options` are flags with typed
    values; wrong ones raise `UsageError` as they do in a run.
    """
    catalogue = discover()
    entry = catalogue.find(kind, name)
    check_requirements(entry)
    spec = DatasetSpec(name="a dataset", facts={"arguments": dict(arguments or {})})
    return PluginManager(catalogue).provide(
        f"llmtune_create_{kind}",
        entry,
        name=entry.name,
        options=validated(entry, options or {}),
        run=run or run_context(),
        **({"spec": spec} if kind == "preprocessor" else {}),
    )


def read_rows(
    name: str, records: Iterable[Mapping[str, Any]], options: Mapping[str, Any] | None = None
) -> tuple[list[Row], DataReport]:
    """Return the rows that the installed dataset `name` makes of `records`, and the report of what it left out.

    Columns are renamed and preprocessed as in a run; nothing is read or downloaded. `options` are flags of
    the dataset's preprocessor, with typed values.
    """
    catalogue, report, run = discover(), DataReport(), run_context()
    manager, selected = PluginManager(catalogue), select_dataset(name, catalogue)
    section = validated(selected.preprocessor, options or {})
    fetcher = Fetcher(manager, run, hub=None, offline=True)
    loader = RowLoader(manager, fetcher, run, lambda *_: section, report)
    return list(usable_rows(loader.preprocessor(selected), records, report)), report


def validated(entry: Entry, options: Mapping[str, Any]) -> Section | None:
    """Return the options of `entry`, None when it has no options class."""
    section = options_class(entry)
    if section is not None:
        return make_section(section, options)
    if options:
        raise UsageError(f"{entry.kind} {entry.name!r} takes no options, found {', '.join(options)}")
    return None


def create_template(name: str, tokenizer: Any, catalogue: Catalogue | None = None) -> tuple[TemplateSpec, Template]:
    """Build template `name` of an installed plugin for `tokenizer`, and return it with its facts.

    Tests of many templates give the `catalogue`: finding all installed plugins takes 0.1 s.
    """
    catalogue = catalogue or discover()
    entry = catalogue.find("template", name)
    spec = TemplateSpec.from_facts(entry.name, entry.facts)
    tools = find_tools_prompt("AUTO", entry, catalogue)
    if tools is not None:
        spec = dataclasses.replace(spec, tools_prompt=ToolsPromptSpec.from_facts(tools.name, tools.facts))
    template: Template = PluginManager(catalogue).provide(
        "llmtune_create_template", entry, spec=spec, tokenizer=tokenizer, run=run_context()
    )
    return spec, template
