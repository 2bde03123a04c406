"""Models from Python: `get_model_tokenizer(name)`, and `get_model_tokenizer_from_repo` for registrations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmtune.config.build import make_section
from llmtune.config.model import ModelSection
from llmtune.errors import UsageError
from llmtune.model.device import auto_dtype
from llmtune.model.load import load_pretrained
from llmtune.model.resolve import choose_model, fetch_model
from llmtune.pipelines.prepare import quiet_libraries
from llmtune.plugins.registration import dtype_name
from llmtune.plugins.requirements import check_requirements
from llmtune.python.session import Session
from llmtune.specs import LoadedModel, LoadOptions


def get_model_tokenizer(
    model_type: str | None,
    torch_dtype: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    load_model: bool = True,
    *,
    model_id_or_path: str | None = None,
    revision: str | None = None,
    hub: str | None = None,
    use_flash_attn: bool | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """Return (model, tokenizer) of a registered model; without `load_model` the first is None.

    `torch_dtype` None chooses as `--dtype AUTO` does; `model_kwargs` are keywords of `from_pretrained`.
    """
    quiet_libraries()
    session = Session.start()
    section = make_section(ModelSection, {"model_type": model_type, "model_id_or_path": model_id_or_path})
    assert isinstance(section, ModelSection)
    choice = choose_model(section, session.catalogue)
    check_requirements(choice.entry)
    dtype = dtype_name(torch_dtype)
    options = LoadOptions(
        dtype=dtype or (auto_dtype(choice.entry.facts.get("dtype"))[0] if load_model else "AUTO"),
        weights=load_model,
        trust_remote_code=trust_remote_code,
        use_flash_attn=use_flash_attn,
        kwargs=_plain_kwargs(model_kwargs),
    )
    spec = fetch_model(choice, session.fetcher(hub), revision, weights=load_model)
    loaded: LoadedModel = session.manager.provide(
        "llmtune_load_model", choice.entry, spec=spec, options=options, run=session.run
    )
    return loaded.model, loaded.tokenizer


def get_model_tokenizer_from_repo(
    model_dir: str,
    torch_dtype: Any = None,
    model_kwargs: Mapping[str, Any] | None = None,
    load_model: bool = True,
    *,
    use_flash_attn: bool | None = None,
    trust_remote_code: bool = False,
    automodel_class: Any = None,
) -> tuple[Any, Any]:
    """Load (model, tokenizer) from a folder as llmtune itself does, for a registered function.

    `use_flash_attention_2` among `model_kwargs`, transformers' name of 2023, means `use_flash_attn`.
    """
    if not Path(model_dir).is_dir():
        raise UsageError(f"model_dir {model_dir}: no such folder", fix="get_model_tokenizer(...) fetches a model")
    kwargs = _plain_kwargs(model_kwargs)
    asked = kwargs.pop("use_flash_attention_2", None)
    options = LoadOptions(
        dtype=dtype_name(torch_dtype) or (auto_dtype()[0] if load_model else "AUTO"),
        weights=load_model,
        trust_remote_code=trust_remote_code,
        use_flash_attn=True if asked else use_flash_attn,
        kwargs=kwargs,
    )
    loaded = load_pretrained(Path(model_dir), options, automodel_class=automodel_class)
    return loaded.model, loaded.tokenizer


def _plain_kwargs(model_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Refuse what would be overruled: code of others and pickled weights are decided in one place."""
    refused = {"trust_remote_code", "use_safetensors"} & (model_kwargs or {}).keys()
    if refused:
        raise UsageError(
            f"model_kwargs cannot hold {', '.join(sorted(refused))}",
            fix="trust_remote_code is an argument of its own; weights are read from safetensors only",
        )
    return dict(model_kwargs or {})
