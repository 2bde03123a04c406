"""Load a native transformers model from a folder."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from llmtune.errors import UsageError
from llmtune.interfaces.layout import Layout
from llmtune.model.layout import layout_of, native_config, read_config, weights_read_as
from llmtune.model.placement import placement
from llmtune.model.positions import scale_positions
from llmtune.model.skeleton import skeleton
from llmtune.specs import LoadedModel, LoadOptions


def load_pretrained(
    folder: Path,
    options: LoadOptions,
    *,
    automodel_class: Any = None,
    layouts: Sequence[Layout] = (),
    read_tokenizer: Callable[[Path], Any] | None = None,
) -> LoadedModel:
    """Load tokenizer and, unless `options.weights` is False, weights of `options.dtype`.

    `options.kwargs` win over what is chosen here; `automodel_class` is used instead of `AutoModelForCausalLM`.
    `layouts` are those that the family was published in; a native folder loads without them. `read_tokenizer` is for
    families whose tokenizer alone is special; a folder with tokenizer.json needs none. Only safetensors are
    read, and pickled weights, which can run code, where `options` allow it. A checkpoint that lacks weights of the
    model raises `UsageError`.
    """
    published = layout_of(folder, layouts)
    _check_folder(folder, options, published)
    if published:
        tokenizer = published.tokenizer(folder)
    elif read_tokenizer and not (folder / "tokenizer.json").exists():
        tokenizer = read_tokenizer(folder)
    else:
        tokenizer = _tokenizer(folder, options)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    loaded = LoadedModel(
        model=None, tokenizer=tokenizer, layouts=tuple(layouts), skeleton=partial(skeleton, folder, layouts)
    )
    if options.weights:
        loaded.model = load_weights(folder, options, automodel_class=automodel_class, layout=published)
        _make_room(loaded.model, tokenizer)
    return loaded


def load_weights(
    folder: Path, options: LoadOptions, *, automodel_class: Any = None, layout: Layout | None = None
) -> Any:
    """Return the model of a folder, which is in `layout` or else native."""
    keywords = {**_keywords(options), "use_safetensors": _has_safetensors(folder, options)}
    config = native_config(layout, folder) if layout else _native_config(folder, options)
    if options.rope_scaling and options.max_length:
        scale_positions(config, options.rope_scaling, options.max_length)
    _choose_trainable_kernel(config)
    keywords["config"] = config
    if getattr(config, "quantization_config", None) and keywords.pop("quantization_config", None):
        print("note: the checkpoint is quantized, its own settings are used", file=sys.stderr)
    if layout is None:
        from transformers import AutoModelForCausalLM

        keywords["trust_remote_code"] = options.trust_remote_code
        return _weights(automodel_class or AutoModelForCausalLM, folder, keywords, complete=automodel_class is None)
    with weights_read_as(layout, config) as model_class:
        model = _weights(model_class, folder, keywords, layout)
    del model._weight_conversions  # else transformers would save the published names beside the native config
    return model


_TRAINABLE_ON_CPU = {"gptq": "gptq_torch", "awq": "torch_awq"}


def _choose_trainable_kernel(config: Any) -> None:
    """Compute packed layers with a kernel that hands gradients on, when answering as well as in training.

    gptqmodel's own choice for a GPU hands none on; that for a CPU stops doing so without a word once it has
    computed an answer (`TorchAtenLinear` of 7.6.0), and rounds to bf16 then.
    """
    import torch

    settings = getattr(config, "quantization_config", None) or {}
    method = settings.get("quant_method")
    if method in _TRAINABLE_ON_CPU:
        settings["backend"] = "auto_trainable" if torch.cuda.is_available() else _TRAINABLE_ON_CPU[method]


def _has_safetensors(folder: Path, options: LoadOptions) -> bool:
    """Whether weights are read from safetensors; raise `UsageError` for pickled ones that nobody allowed."""
    if any(folder.glob("*.safetensors")):
        return True
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled and options.pickled_weights:
        return False
    if pickled:
        raise UsageError(
            f"{folder} holds its weights pickled ({pickled[0]}), which can run code when it is read",
            fix="choose a revision with safetensors; or --read_pickled_weights true, which takes tensors alone from it",
        )
    raise UsageError(
        f"{folder} holds no weights (*.safetensors)",
        fix="download it again; where the hub has pickled weights alone (*.bin), download those yourself, name the "
        "folder with --model_id_or_path and add --read_pickled_weights true",
    )


def _check_shards(folder: Path, options: LoadOptions) -> None:
    """Raise `UsageError` where an index names files that are not there, before anything else takes time.

    Without `options.weights` none of them may have been fetched.
    """
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise UsageError(f"{index} cannot be read: {error}", fix="download it again") from error
        missing = sorted(name for name in named if not (folder / str(name)).is_file())
        if missing and (options.weights or len(missing) < len(named)):
            raise UsageError(
                f"{folder} lacks {len(missing)} of the {len(named)} files of its weights, first {missing[0]}",
                fix="download the model again",
            )


def _make_room(model: Any, tokenizer: Any) -> None:
    """Give a vector to every token: some tokenizers have tokens that the published model lacks."""
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        resize_vocabulary(model, len(tokenizer))
        head = "" if model.config.get_text_config().tie_word_embeddings else " lm_head"
        print(
            f"warning: the tokenizer has {len(tokenizer) - rows} tokens more than the model, which get new vectors; a "
            f"run with adapters leaves them as they are unless it has --modules_to_save EMBEDDING{head}",
            file=sys.stderr,
        )


def resize_vocabulary(model: Any, rows: int) -> None:
    """Add vectors for new tokens, drawn around the mean of those there are: the same ones whenever it is asked."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.resize_token_embeddings(rows)


def _native_config(folder: Path, options: LoadOptions) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=options.trust_remote_code)


def _tokenizer(folder: Path, options: LoadOptions) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{folder} holds no tokenizer that can be read: {reason}",
            fix="put tokenizer.json and tokenizer_config.json there, or download the model again",
        ) from error


def _keywords(options: LoadOptions) -> dict[str, Any]:
    return {
        "dtype": options.torch_dtype,
        "attn_implementation": _attention(options.use_flash_attn),
        **placement(options),
        **options.kwargs,
        "ignore_mismatched_sizes": True,  # named below, by a message of ours
    }


def _weights(
    model_class: Any, folder: Path, keywords: Mapping[str, Any], layout: Layout | None = None, *, complete: bool = True
) -> Any:
    """Load the weights; unless `complete` is False, all of the model's must be there."""
    if not complete:
        return model_class.from_pretrained(folder, **{**keywords, "ignore_mismatched_sizes": False})
    try:
        with _quiet_report():
            model, info = model_class.from_pretrained(folder, **keywords, output_loading_info=True)
    except UnpicklingError as error:
        raise UsageError(
            f"the pickled weights in {folder} cannot be read as tensors alone: they hold something that would run code",
            fix="choose a checkpoint with safetensors",
        ) from error
    _check_complete(folder, info)
    _check_left_over(folder, info["unexpected_keys"], layout)
    return model


def _check_complete(folder: Path, info: Mapping[str, Any]) -> None:
    """Raise `UsageError` where weights would have stayed random."""
    missing = sorted(info["missing_keys"])
    mismatched = sorted(str(key) for key in info["mismatched_keys"])
    if missing or mismatched:
        problem = f"lacks {len(missing)} of the model's weights, first {missing[0]}" if missing else ""
        problem = problem or f"has {len(mismatched)} weights of another shape, first {mismatched[0]}"
        raise UsageError(
            f"the checkpoint in {folder} does not fit its config.json: it {problem}",
            fix="download it again, or choose the --model_type that it belongs to",
        )


def _check_left_over(folder: Path, names: Iterable[str], layout: Layout | None) -> None:
    """Tensors without a place are a mistake in a layout that we read; in a native one they are named."""
    known = re.compile("|".join(layout.without_place if layout else ()) or r"(?!)")
    left = sorted(name for name in names if not known.search(name))
    if not left:
        return
    problem = f"{len(left)} tensors in {folder} have no place in the model, first {left[0]}"
    if layout:
        raise UsageError(problem, fix="choose the --model_type that the checkpoint belongs to")
    print(f"warning: {problem}", file=sys.stderr)


@contextmanager
def _quiet_report() -> Iterator[None]:
    """transformers logs what we raise as an error, as a table."""

    def is_error(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(is_error)
    try:
        yield
    finally:
        logger.removeFilter(is_error)


def _attention(use_flash_attn: bool | None) -> str | None:
    """None leaves it to transformers: SDPA where the architecture has it, else eager."""
    return {None: None, True: "flash_attention_2", False: "eager"}[use_flash_attn]


def _check_folder(folder: Path, options: LoadOptions, layout: Layout | None) -> None:
    """Raise `UsageError` for a folder without a model, with half of one or an adapter beside it, or whose model is code
    that nobody allowed to run.
    """
    if (folder / "adapter_config.json").is_file() and (folder / "config.json").is_file():
        raise UsageError(
            f"{folder} holds a model and an adapter (adapter_config.json): which of them is meant?",
            fix="move adapter_config.json and adapter_model.safetensors to a folder of their own; --ckpt_dir names it "
            "to use the adapter",
        )
    _check_shards(folder, options)
    if "auto_map" not in read_config(folder) or layout is not None or options.trust_remote_code:
        return
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        raise UsageError(
            f"the model in {folder} comes with its own Python code, which llmtune does not run by itself",
            fix="read the code, then add --trust_remote_code true; or choose a model with a native class",
        ) from error
