"""`llmtune doctor`: versions, devices, what is missing and the command that installs it."""

from __future__ import annotations

import json
import platform
import shutil
from importlib import metadata
from typing import Annotated, Any

import typer

from llmtune import __version__
from llmtune.config import environment
from llmtune.plugins.catalogue import Catalogue
from llmtune.plugins.health import examine
from llmtune.table import text_table

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

_LIBRARIES = {
    "torch": "everything",
    "transformers": "everything",
    "peft": "adapters such as lora",
    "accelerate": "training",
    "bitsandbytes": "8-bit and 4-bit base models",
    "modelscope": "the hub modelscope",
    "huggingface-hub": "the hub huggingface",
    "tensorboard": "training curves in tensorboard",
    "flash-attn": "--use_flash_attn on GPUs",
    "gguf": "models from GGUF files",
}
_KINDS_OF_A_RUN = {
    "model": "llmtune-plugin-smollm",
    "template": "llmtune-plugin-template-chatml",
    "tuner": "llmtune-plugin-lora",
    "trainer": "llmtune-plugin-hf",
    "engine": "llmtune-plugin-transformers",
    "hub": "llmtune-plugin-pypi",
}


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def doctor(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False
) -> None:
    """Show versions and devices, and what is missing."""
    catalogue: Catalogue = context.obj.catalogue
    facts = {
        "llmtune": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "devices": devices(),
        "disk": {"cache": str(environment.cache_folder()), "free_gib": _free_gib()},
        "problems": problems(catalogue),
    }
    print(json.dumps(facts, indent=1) if as_json else _text(facts))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> list[str]:
    """Name the devices that torch sees; bf16 says whether they compute in it."""
    if _version("torch") is None:
        return []
    import torch

    from llmtune.model.device import auto_dtype

    dtype, _ = auto_dtype()
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return [f"{one.name}, {one.total_memory / 2**30:.0f} GiB, {dtype}" for one in properties]
    return [f"CPU, {torch.get_num_threads()} threads, {dtype}"]


def _free_gib() -> float:
    folder = environment.cache_folder()
    while not folder.exists():
        folder = folder.parent
    return round(shutil.disk_usage(folder).free / 2**30, 1)


def problems(catalogue: Catalogue) -> list[dict[str, str]]:
    """Return what keeps the installed plugins from working, with what to do."""
    found = []
    for kind, dist in _KINDS_OF_A_RUN.items():
        if not catalogue.entries(kind):
            found.append({"problem": f"no {kind} is installed", "fix": f"pip install {dist}"})
    for plugin in catalogue.plugins:
        finding = examine(plugin, catalogue)
        if finding.state not in ("ok", "disabled", "slow"):
            found.append({"problem": f"plugin {plugin}: {finding.reason}", "fix": finding.fix})
    return found


def _text(facts: dict[str, Any]) -> str:
    rows = [
        (name, version or "-", f"for {_LIBRARIES[name]}" + ("" if version else f": pip install {name}"))
        for name, version in facts["libraries"].items()
    ]
    parts = [
        f"llmtune {facts['llmtune']}, Python {facts['python']}, {facts['platform']}",
        text_table(["LIBRARY", "VERSION", "USE"], rows),
        "devices: " + ("; ".join(facts["devices"]) or "torch is not installed"),
        f"cache: {facts['disk']['cache']} ({facts['disk']['free_gib']} GiB free)",
    ]
    parts += [f"problem: {item['problem']}\n  {item['fix']}" for item in facts["problems"]] or ["no problems found"]
    return "\n\n".join(parts)
