"""Local plugins: names that one Python file of the user registers (`--custom_register_path`).

The file runs at once under a unique module name. `register_model`, `register_dataset` and
`register_template` take the arguments that SWIFT's do and build the same catalogue rows that a
manifest would; `hookimpl` functions in the file are registered too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from llmtune.errors import LlmtuneError, ManifestError, PluginFailed, UsageError
from llmtune.hookspecs import hookimpl
from llmtune.plugins.catalogue import Catalogue, Plugin
from llmtune.plugins.manifest import API, check_facts, parse_manifest, read_manifest
from llmtune.specs import DatasetSpec, LoadedModel, LoadOptions, ModelSpec, RunContext, TemplateSpec

Function = TypeVar("Function", bound=Callable[..., Any])
_collecting: ContextVar[LocalPlugin] = ContextVar("_collecting")


class LocalPlugin:
    """What one file registered: rows for the catalogue and the functions behind them."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, Any]]] = {}
        self.functions: dict[tuple[str, str], Callable[..., Any]] = {}

    def add(self, kind: str, name: str, facts: Mapping[str, Any], function: Callable[..., Any] | None = None) -> None:
        rows = self.tables.setdefault(kind, {})
        if name in rows:
            raise UsageError(f"{kind} {name!r} is registered twice in the same file")
        rows[name] = {key: value for key, value in facts.items() if value is not None}
        if function is not None:
            self.functions[kind, name] = function

    def hooks(self) -> Any:
        """Return a pluggy plugin that implements only the hooks this file has functions for."""
        used = {kind for kind, _ in self.functions}
        return type(
            "LocalHooks", (), {h.__name__: staticmethod(h) for kind, h in _hooks(self.functions) if kind in used}
        )()


def _hooks(functions: Mapping[tuple[str, str], Callable[..., Any]]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield (kind, hook implementation) pairs that look the function up by name."""

    @hookimpl
    def llmtune_load_model(spec: ModelSpec, options: LoadOptions, run: RunContext) -> LoadedModel | None:
        function = functions.get(("model", spec.name))
        return None if function is None else _call_model_function(function, spec, options)

    @hookimpl
    def llmtune_load_dataset(spec: DatasetSpec, split: str, run: RunContext) -> Any:
        function = functions.get(("dataset", spec.name))
        return function() if function is not None and split == "train" else None

    @hookimpl
    def llmtune_create_preprocessor(name: str, options: Any, run: RunContext) -> Any:
        return functions.get(("preprocessor", name))

    @hookimpl
    def llmtune_create_tuner(name: str, options: Any, run: RunContext) -> Any:
        function = functions.get(("tuner", name))
        return function(options) if function is not None else None

    yield "model", llmtune_load_model
    yield "dataset", llmtune_load_dataset
    yield "preprocessor", llmtune_create_preprocessor
    yield "tuner", llmtune_create_tuner


def _call_model_function(function: Callable[..., Any], spec: ModelSpec, options: LoadOptions) -> LoadedModel:
    """Call a SWIFT-style `get_function(model_dir, torch_dtype, model_kwargs, load_model, **kwargs)`."""
    model, tokenizer = function(
        str(spec.folder) if spec.folder else None,
        options.torch_dtype if options.weights else None,
        dict(options.kwargs),
        load_model=options.weights,
    )
    return LoadedModel(model=model, tokenizer=tokenizer)


# --- what a user's file calls ---------------------------------------------------------------------


def register_model(
    model_type: str,
    model_id_or_path: str | None = None,
    target_modules: Sequence[str] | None = None,
    template: str = "chatml",
    get_function: Function | None = None,
    **facts: Any,
) -> Any:
    """Register a checkpoint. `model_id_or_path` is a ModelScope id (`hf_model_id=` names the other hub's) or a folder.

    Without `get_function` the call can be used as a decorator; used neither way, core loads the model.
    """
    tuner = {"target_modules": list(target_modules)} if target_modules else None
    row = {"ms": model_id_or_path, "hf": facts.pop("hf_model_id", None), "template": template, "tuner": tuner, **facts}
    _current("register_model").add("model", model_type, {**row, "family": model_type}, get_function)
    return get_function or _decorator("model", model_type)


def register_dataset(
    name: str,
    dataset_id_or_path: str | None = None,
    preprocess_func: Callable[..., Any] | None = None,
    get_function: Function | None = None,
    **facts: Any,
) -> Any:
    """Register a dataset: a path or ModelScope id, and functions that repair a record or return all records."""
    plugin = _current("register_dataset")
    is_path = dataset_id_or_path is not None and Path(dataset_id_or_path).expanduser().exists()
    place = {"file" if is_path else "ms": str(Path(dataset_id_or_path).resolve()) if is_path else dataset_id_or_path}  # type: ignore[arg-type]
    row = {**place, "hf": facts.pop("hf_dataset_id", None), **facts}
    if preprocess_func is not None:
        plugin.add("preprocessor", name, {}, preprocess_func)
        row["preprocessor"] = name
    plugin.add("dataset", name, row, get_function)
    return get_function or _decorator("dataset", name)


def register_template(template_type: str, template: TemplateSpec | Mapping[str, Any]) -> None:
    """Register a chat format: `Template(prefix, prompt, chat_sep, suffix, default_system, system_prefix)`."""
    facts = template if isinstance(template, Mapping) else _template_facts(template)
    _current("register_template").add("template", template_type, facts)


def register_tuner(name: str, factory: Function | None = None, *, options: type | None = None, **facts: Any) -> Any:
    """Register a tuner; `factory(options)` returns a `Tuner`. Also usable as a decorator."""
    _current("register_tuner").add("tuner", name, {"options": options, **facts}, factory)
    return factory or _decorator("tuner", name)


def register_command(name: str, app: Callable[..., Any], *, help: str) -> None:
    """Register `llmtune NAME`; `app` is a typer app or any callable that takes a list of arguments."""
    _current("register_command").add("command", name, {"run": app, "help": help})


def Template(  # noqa: N802 - the name that SWIFT's users know
    prefix: list[Any],
    prompt: list[Any],
    chat_sep: list[Any] | None,
    suffix: list[Any],
    default_system: str | None = None,
    system_prefix: list[Any] | None = None,
    stop_words: Sequence[str] = (),
) -> TemplateSpec:
    """Build a chat format from its parts, in SWIFT's order."""
    return TemplateSpec(
        name="",
        prefix=prefix,
        prompt=prompt,
        chat_sep=chat_sep,
        suffix=suffix,
        default_system=default_system,
        system_prefix=system_prefix,
        stop_words=list(stop_words),
    )


def _template_facts(spec: TemplateSpec) -> dict[str, Any]:
    return {key: value for key, value in vars(spec).items() if key != "name" and value is not None}


def _current(what: str) -> LocalPlugin:
    try:
        return _collecting.get()
    except LookupError:
        raise UsageError(
            f"{what} was called outside a registration file", fix="pass the file with --custom_register_path"
        ) from None


def _decorator(kind: str, name: str) -> Callable[[Function], Function]:
    plugin = _current(f"register_{kind}")

    def register(function: Function) -> Function:
        plugin.functions[kind, name] = function
        return function

    return register


# --- reading such files ---------------------------------------------------------------------------


def add_local_plugins(catalogue: Catalogue, paths: Sequence[str]) -> Catalogue:
    """Return the catalogue with the names that each path registers; they win over installed ones."""
    for text in paths:
        path = Path(text).expanduser().resolve()
        plugin = _named_apart(_from_folder(path) if path.is_dir() else _from_file(path), catalogue)
        for line in _shadowed(plugin, catalogue):
            print(line, file=sys.stderr)
        catalogue = catalogue.with_plugin(plugin)
    return catalogue


def _named_apart(plugin: Plugin, catalogue: Catalogue) -> Plugin:
    """Number the plugins of files that are called the same."""
    taken = {other.name for other in catalogue.plugins}
    names = (plugin.name, *(f"{plugin.name}-{number}" for number in range(2, len(taken) + 3)))
    return replace(plugin, name=next(name for name in names if name not in taken))


def _from_file(path: Path) -> Plugin:
    if not path.is_file():
        raise UsageError(f"--custom_register_path {path}: no such file")
    collected = LocalPlugin()
    module = _run_file(path, collected)
    manifest = parse_manifest({"api": API, "summary": f"registered by {path.name}"})
    manifest = replace(manifest, tables=_checked(collected.tables, path))
    implementation = _merge(collected.hooks(), module)
    return Plugin(
        name=f"local-{path.stem}", dist="local file", version=str(path), manifest=manifest, local=implementation
    )


def _checked(tables: dict[str, dict[str, dict[str, Any]]], path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Hold the rows to the manifest's rules; models and datasets may carry further annotations, as in SWIFT."""
    for kind, rows in tables.items():
        for name, facts in rows.items() if kind not in ("model", "dataset") else ():
            try:
                check_facts(kind, name, facts)
            except ManifestError as error:
                error.problem = f"{path}: {error.problem}"
                raise
    return tables


def _from_folder(folder: Path) -> Plugin:
    try:
        manifest = read_manifest(folder / "llmtune-plugin.toml")
    except ManifestError as error:
        error.problem = f"--custom_register_path {folder}: {error.problem}"
        raise
    name = (manifest.module or "").partition(".")[0]
    if name and str(folder.parent) not in sys.path:
        sys.path.insert(0, str(folder.parent))
    try:
        module = importlib.import_module(manifest.module) if manifest.module else object()
    except (Exception, SystemExit) as error:
        problem = f"--custom_register_path {folder}: {manifest.module} failed: {type(error).__name__}: {error}"
        raise PluginFailed(problem, fix="mend the module and run again") from error
    return Plugin(
        name=f"local-{folder.name}",
        dist="local folder",
        version=str(folder),
        manifest_path=folder / "llmtune-plugin.toml",
        manifest=manifest,
        local=module,
    )


def _run_file(path: Path, collected: LocalPlugin) -> Any:
    name = f"_llmtune_local_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--custom_register_path {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with _collect(collected):
        try:
            spec.loader.exec_module(module)
        except LlmtuneError as error:
            error.problem = f"{path}{_line_in(path, error)}: {error.problem}"
            raise
        except (Exception, SystemExit) as error:
            line = _line_in(path, error)
            raise PluginFailed(
                f"{path}{line} failed: {type(error).__name__}: {error}", fix="mend the file and run again"
            ) from error
    return module


@contextmanager
def _collect(plugin: LocalPlugin) -> Iterator[None]:
    token = _collecting.set(plugin)
    try:
        yield
    finally:
        _collecting.reset(token)


def _line_in(path: Path, error: BaseException) -> str:
    frames = (
        [frame for frame in inspect.getinnerframes(error.__traceback__) if frame.filename == str(path)]
        if error.__traceback__
        else []
    )
    return f":{frames[-1].lineno}" if frames else ""


def _merge(hooks: Any, module: Any) -> Any:
    """Add the file's own `hookimpl` functions to the hooks built from its registrations."""
    for name, value in vars(module).items():
        if name.startswith("llmtune_") and callable(value) and hasattr(value, "llmtune_impl"):
            setattr(hooks, name, value)
    return hooks


def _shadowed(plugin: Plugin, catalogue: Catalogue) -> Iterator[str]:
    for kind, rows in plugin.manifest.tables.items():
        for name in rows:
            owners = catalogue.owners(kind, name)
            if owners:
                yield f"note: {kind} {name!r} of {plugin.name} is used instead of that of {', '.join(map(str, owners))}"
