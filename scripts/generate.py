"""Write what follows from manifests and flags: the directory of names, plugin READMEs, command pages.

`python scripts/generate.py` writes the files; with `--check` it names those that are out of date and
exits 1. It reads the workspace it lies in, whether the plugins are installed or not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmtune.cli.main import main as cli
from llmtune.config.aliases import aliases
from llmtune.config.source import OPTION_KINDS, Flag, Panel, option_names, options_panel, panels
from llmtune.errors import LlmtuneError, ManifestError
from llmtune.plugins.catalogue import Catalogue, Entry, Plugin, discover
from llmtune.plugins.manifest import KINDS, hub_ids, read_manifest, tomllib

ROOT = Path(__file__).resolve().parent.parent
FIRST_TO_INSTALL = ("llmtune-plugin-lora", "llmtune-plugin-full")
COMMAND = "python scripts/generate.py"
MODEL = "smollm2-135m-instruct"
"""The model of examples that need some model: the smallest that every hub has."""
EXAMPLES = {
    "model": "llmtune sft --model_type {name} --dataset {rows}",
    "command": "llmtune {name} --help",
    "tuner": "llmtune sft --sft_type {name} --model_type {model} --dataset {rows}",
    "trainer": "llmtune sft --train_backend {name} --model_type {model} --dataset {rows}",
    "engine": "llmtune infer --infer_backend {name} --model_type {model}",
    "hub": "llmtune infer --hub {name} --model_type {model}",
    "quantizer": "llmtune sft --quantization_bit {bits} --quant_method {name} --model_type {model} --dataset {rows}",
    "metric": "llmtune sft --predict_with_generate true --metric {name} --model_type {model} --dataset {rows}",
    "optimizer": "llmtune sft --optim {name} --model_type {model} --dataset {rows}",
    "dataset": "llmtune sft --model_type {model} --dataset {name}{needed}",
    "tools_prompt": "llmtune inspect --model_type {model} --tools_prompt {name} --dataset {rows}",
    "loss_scale": "llmtune sft --use_loss_scale --loss_scale_config_path {name} --model_type {model} --dataset {rows}",
    "template": "llmtune inspect --model_type {model} --template_type {name} --dataset {rows}",
}
"""Kind -> a command that uses a name of that kind; a package shows the first that it has."""
Pages = dict[Path, str]


def main(arguments: Sequence[str]) -> int:
    """Build every page, then write or compare; 0: done or up to date, 1: something is not."""
    os.environ["COLUMNS"] = "80"  # help texts are wrapped at the terminal's edge
    plugins = workspace()
    catalogue = Catalogue((*discover(entry_points=[]).plugins, *plugins))
    directory = {**dists_by_name(plugins), "flag": dists_by_flag(plugins)}
    pages = {ROOT / "core/src/llmtune/plugins/directory.json": json.dumps(directory, indent=1, sort_keys=True) + "\n"}
    pages |= {folder(plugin) / "README.md": readme(plugin, catalogue, directory) for plugin in plugins}
    pages |= {ROOT / f"docs/commands/{command}.md": command_page(command, catalogue) for command in OPTION_KINDS}
    pages |= {ROOT / "docs/commands/others.md": others_page(catalogue)}
    stale = {path: text for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text}
    return report(stale) if "--check" in arguments else write(stale)


def report(stale: Pages) -> int:
    print("".join(f"out of date: {path.relative_to(ROOT)}\n" for path in stale), end="")
    print(f"mend with: {COMMAND}" if stale else "generated files are up to date")
    return 1 if stale else 0


def write(stale: Pages) -> int:
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def workspace() -> list[Plugin]:
    """Return the plugins by distribution name, and make their modules importable."""
    plugins = [read_plugin(path) for path in ROOT.glob("plugins*/*/src/*/llmtune-plugin.toml")]
    sys.path[:0] = sorted(str(folder(plugin) / "src") for plugin in plugins)
    return sorted(plugins, key=lambda plugin: plugin.dist)


def read_plugin(path: Path) -> Plugin:
    facts = project(path.parents[2])
    try:
        manifest = read_manifest(path)
    except ManifestError as error:
        raise ManifestError(f"{path.relative_to(ROOT)}: {error.problem}", fix=error.fix) from error
    name = next(iter(facts["entry-points"]["llmtune.plugins"]))
    return Plugin(name=name, dist=facts["name"], version="", manifest_path=path, manifest=manifest)


def project(folder: Path) -> Any:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def folder(plugin: Plugin) -> Path:
    assert plugin.manifest_path is not None
    return plugin.manifest_path.parents[2]


def dists_by_name(plugins: Iterable[Plugin]) -> dict[str, dict[str, str]]:
    """Return kind -> name or alias -> distribution; two owners of a name raise `NameConflict`."""
    own = Catalogue(tuple(plugins))
    directory = {kind: {name: own.find(kind, name).plugin.dist for name in own.names(kind)} for kind in KINDS}
    return {kind: names for kind, names in directory.items() if names}


def dists_by_flag(plugins: Iterable[Plugin]) -> dict[str, str]:
    """Return flag -> distribution; of several that share it, the first of FIRST_TO_INSTALL, else of the alphabet."""
    ordered = sorted(plugins, key=lambda one: (one.dist not in FIRST_TO_INSTALL, one.dist), reverse=True)
    owners = ((plugin, entry) for plugin in ordered for entry in entries(plugin, Catalogue((plugin,))))
    return {flag: plugin.dist for plugin, entry in owners for flag in option_names(entry)}


def entries(plugin: Plugin, catalogue: Catalogue) -> Iterator[Entry]:
    for kind in plugin.manifest.tables:
        yield from (entry for entry in catalogue.entries(kind) if entry.plugin is plugin)


def option_panels(plugin: Plugin, catalogue: Catalogue) -> Iterator[tuple[Entry, Panel]]:
    """Yield the names of `plugin` that bring flags, with these."""
    for entry in entries(plugin, catalogue):
        if entry.facts.get("options"):
            yield entry, options_panel(entry)


def readme(plugin: Plugin, catalogue: Catalogue, directory: Mapping[str, Mapping[str, str]]) -> str:
    command = example(plugin, catalogue)
    model_dist = directory.get("model", {}).get(MODEL, plugin.dist)
    note = f"\n\nThe model is in `{model_dist}`." if MODEL in command and plugin.dist != model_dist else ""
    adds = [[entry.kind, code(entry.name), described(entry)] for entry in entries(plugin, catalogue)]
    parts = [
        f"# {plugin.dist}",
        f"{plugin.manifest.summary}. A plugin of llmtune.",
        f"```\npip install {plugin.dist}\n{command}\n```{note}",
        "## What it adds\n\n" + table(["kind", "name", "summary"], adds),
        *(
            f"## Flags of {entry.kind} {code(entry.name)}\n\n{flags(panel.flags)}"
            for entry, panel in option_panels(plugin, catalogue)
        ),
        f"Licence: {project(folder(plugin))['license']}. This file is generated by `{COMMAND}`.",
    ]
    return "\n\n".join(parts) + "\n"


def example(plugin: Plugin, catalogue: Catalogue) -> str:
    """Return a command that uses what the plugin adds; for a model a chat model rather than a base model."""
    tables = plugin.manifest.tables
    kind = next((kind for kind in EXAMPLES if tables.get(kind)), None)
    if kind is None:
        return f"llmtune plugins doctor {plugin.name}"
    chosen = {name: facts for name, facts in tables[kind].items() if not facts.get("base")} or tables[kind]
    name, facts = (MODEL, tables[kind][MODEL]) if MODEL in tables[kind] else next(iter(chosen.items()))
    values = {"name": name, "model": MODEL, "rows": "data.jsonl", "bits": min(facts.get("bits", [4]))}
    return EXAMPLES[kind].format(**values, needed=needed_flags(plugin, facts, catalogue))


def needed_flags(plugin: Plugin, facts: Mapping[str, Any], catalogue: Catalogue) -> str:
    """Return the flags of a dataset's preprocessor that have no value of their own."""
    own = facts.get("preprocessor")
    found = [flag for entry, panel in option_panels(plugin, catalogue) if entry.name == own for flag in panel.flags]
    return "".join(f" --{flag.name} {flag.name.upper()}" for flag in found if flag.default in (None, [None, None]))


def described(entry: Entry) -> str:
    facts = entry.facts
    ids = hub_ids(facts) if entry.kind in ("model", "dataset") else {}
    repositories = ", ".join(f"{hub}: {code(repo)}" for hub, repo in sorted(ids.items()))
    aliases = ", ".join(map(code, facts.get("aliases", ())))
    summary = cell(facts.get("summary") or facts.get("help") or "")
    return "; ".join(filter(None, [summary, repositories, f"also {aliases}" if aliases else ""]))


def command_page(command: str, catalogue: Catalogue) -> str:
    """Return the page of a command whose flags come from sections."""
    parts = [
        f"# llmtune {command}\n\n{catalogue.find('command', command).facts['help']}.",
        f"```\nllmtune {command} [RUN.yaml] [OPTIONS]\n```",
        f"Every flag is also a key of the run file, without the dashes (`llmtune config-schema {command}` prints its"
        " JSON schema). The command line wins over the run file. `-` and `_` are the same in names. A flag that takes"
        " a list takes several words.",
    ]
    found = list(panels(command, catalogue))
    if any(flag.pending for panel in found for flag in panel.flags):
        parts.append("A flag marked * is understood, but not available yet: any value but its default is refused.")
    for panel in found:
        owner = (
            f"{panel.entry.plugin.dist}: {panel.entry.kind} {code(panel.entry.name)}" if panel.entry else panel.title
        )
        parts.append(f"## {owner}\n\n{flags(panel.flags)}")
    old = aliases([flag.name for panel in found for flag in panel.flags])
    if old:
        lines = [[code(f"--{name}"), code(f"--{new}")] for name, new in sorted(old.items())]
        parts.append(
            f"## Old names\n\nThese still work, with a line that names today's.\n\n{table(['old', 'today'], lines)}"
        )
    return "\n\n".join(parts) + "\n"


def others_page(catalogue: Catalogue) -> str:
    """Return the page of all other commands: the help that they print themselves."""
    parts = ["# Other commands"]
    for entry in catalogue.entries("command"):
        if entry.plugin.dist != "llmtune":
            parts.append(f"## llmtune {entry.name}\n\n{cell(entry.facts['help'])}. From `{entry.plugin.dist}`.")
        elif entry.name not in OPTION_KINDS:
            shown = "\n\n".join(f"```\n{text}\n```" for text in help_texts(entry.name))
            parts.append(f"## llmtune {entry.name}\n\n{entry.facts['help']}.\n\n{shown}")
    return "\n\n".join(parts) + "\n"


def help_texts(command: str) -> Iterator[str]:
    """Yield what `--help` prints, then that of the subcommands, which argparse indents by four."""
    yield (text := printed(command, "--help"))
    for subcommand in re.findall(r"^ {4}([a-z-]+) {2,}\S", text, re.MULTILINE):
        yield printed(command, subcommand, "--help")


def printed(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        cli(arguments)
    return output.getvalue().strip()


def flags(found: Iterable[Flag]) -> str:
    """Return a table of flags."""
    lines = [[_starred(flag), code(flag.takes), default(flag.default), cell(flag.description)] for flag in found]
    return table(["flag", "takes", "default", "description"], lines)


def _starred(flag: Flag) -> str:
    return code(f"--{flag.name}") + ("\\*" if flag.pending else "")


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *lines))


def default(value: object) -> str:
    """Return a default as a user would write it; nothing for an empty list."""
    if isinstance(value, list):
        return code(" ".join(map(str, value))) if value else ""
    if isinstance(value, bool) or value == "":
        return code(json.dumps(value))
    return code(str(value))


def code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LlmtuneError as error:
        sys.exit(f"error: {error}")
