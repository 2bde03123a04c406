"""What the tuners that stand on peft have in common."""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from llmtune.errors import CheckpointError
from llmtune.interfaces.tuner import Tuner
from llmtune.model.load import resize_vocabulary
from llmtune.model.target_layers import cannot_adapt, modules_to_save, target_modules
from llmtune.specs import LoadOptions, RunContext

if TYPE_CHECKING:
    from llmtune.config.target_layers import TargetLayers


class PeftTuner(Tuner):
    """A method of peft: adapters beside the chosen layers of a frozen model.

    Subclasses say which peft config their options are.
    """

    method: ClassVar[str]
    """Its name in messages, such as "LoRA"."""

    def __init__(self, options: TargetLayers, run: RunContext) -> None:
        self.options, self.run = options, run

    @abstractmethod
    def config(self, model: Any, **layers: Any) -> Any:
        """Return the `PeftConfig`; `layers` are its keywords `target_modules` and `modules_to_save`."""

    def prepare(self, model: Any) -> Any:
        from peft import get_peft_model

        options, plan = self.options, self.run.plan
        asked = plan.native_modules(options.target_modules)
        config = self.config(
            model,
            target_modules=options.target_regex or target_modules(asked, plan.target_modules, model),
            modules_to_save=modules_to_save(options.modules_to_save, model) or None,
        )
        if getattr(config, "ensure_weight_tying", None) is False:
            config.ensure_weight_tying = _trains_a_tied_embedding(model, config.modules_to_save or ())
        try:
            return self.with_precision(get_peft_model(model, config))
        except ValueError as error:  # peft's NoMatchingPeftModuleError is one
            raise cannot_adapt(self.method, options.target_regex, options.target_modules, model, error) from error

    def with_precision(self, model: Any) -> Any:
        """Give the trained parameters of a fresh or loaded model their type; return the model.

        `lora_dtype` AUTO, and options without it, leave adapters as peft makes them: fp32 over a half-precision base.
        """
        dtype = getattr(self.options, "lora_dtype", "AUTO")
        for name, parameter in model.named_parameters() if dtype != "AUTO" else ():
            if "lora_" in name:
                parameter.data = parameter.data.to(LoadOptions(dtype=dtype).torch_dtype)
        return keep_whole_layers_in_fp32(model)

    def save(self, model: Any, folder: Path) -> None:
        # An adapted embedding is the base's own beside its adapter; peft would store all of it.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        from peft import PeftModel

        self.check_folder(folder)
        _make_room(model, folder)
        with _misfits_raise(folder):
            loaded = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
        return self._in_stored_precision(loaded, folder)

    def _in_stored_precision(self, model: Any, folder: Path, name: str = "default") -> Any:
        """peft reads weights before they have their final type: what it rounded on the way is read again."""
        from peft import load_peft_weights, set_peft_model_state_dict

        model = self.with_precision(model)
        stored = load_peft_weights(str(folder), device="cpu")
        unexpected = set_peft_model_state_dict(model, stored, adapter_name=name).unexpected_keys
        left_over = sorted(key for key in unexpected if not _is_copy(key, stored))
        if left_over:
            raise _misfit(
                folder, f"{len(left_over)} of its {len(stored)} tensors have no place in it, first {left_over[0]}"
            )
        return model

    def check_folder(self, folder: Path) -> None:
        """Raise `CheckpointError` unless `folder` holds an adapter of this method."""
        try:
            settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise CheckpointError(
                f"{folder} holds no {self.method} adapter (adapter_config.json is missing)", fix="check --sft_type"
            ) from error
        except ValueError as error:
            raise CheckpointError(f"{folder}/adapter_config.json is not valid JSON: {error}") from error
        self.check_settings(settings, folder)

    def check_settings(self, settings: dict[str, Any], folder: Path) -> None:
        """Raise `CheckpointError` for the settings of an adapter that cannot be loaded as it was trained."""
        kind = str(settings.get("peft_type"))
        if kind != self.method.upper():
            problem = f"{folder} holds an adapter of type {kind}, not {self.method}"
            raise CheckpointError(problem, fix="check --sft_type")

    def merge(self, model: Any) -> Any:
        _untie(model.get_base_model())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Input and output embeddings are no longer tied")  # as it is meant
            merged = model.merge_and_unload()
        if _ties(merged.config) and not _shares_its_head(merged):
            _set_untied(merged.config)  # else what is read from its files would share one of the two again
        return merged

    def add(self, model: Any, folder: Path, name: str) -> Any:
        self.check_folder(folder)
        with _misfits_raise(folder):
            model.load_adapter(folder, adapter_name=name)
        return self._in_stored_precision(model, folder, name)

    def choose(self, model: Any, name: str | None) -> None:
        model.set_adapter(name or "default", inference_mode=True)


def _trains_a_tied_embedding(model: Any, modules_to_save: Collection[str]) -> bool:
    """Whether the head is the embedding, and that is trained: unasked, peft trains a copy for the input alone."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    trained = (module for name, module in model.named_modules() if name.rpartition(".")[2] in modules_to_save)
    return head is not None and head.weight is embedding.weight and any(module is embedding for module in trained)


def _shares_its_head(model: Any) -> bool:
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    return head is None or _weight(head) is _weight(embedding)


def _weight(layer: Any) -> Any:
    return getattr(layer, "base_layer", layer).weight


def _untie(model: Any) -> None:
    """Give the head a weight of its own where an adapter changes it or the embedding alone: merged, it changes one."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if (
        head is not None
        and _shares_its_head(model)
        and any(isinstance(one, BaseTunerLayer) for one in (embedding, head))
    ):
        layer = getattr(head, "base_layer", head)
        layer.weight = type(layer.weight)(layer.weight.detach().clone(), requires_grad=False)
        _set_untied(model.config)


def _ties(config: Any) -> bool:
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))


def _set_untied(config: Any) -> None:
    config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False


@contextmanager
def _misfits_raise(folder: Path) -> Iterator[None]:
    """peft only warns where an adapter has no weights for a layer that it names; torch lists all that differ."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            yield
        except UserWarning as warning:
            raise _misfit(folder, str(warning).partition(".")[0]) from warning
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                raise
            first = next(line.strip() for line in str(error).splitlines() if "size mismatch" in line)
            raise _misfit(folder, first.rstrip(".")) from error


def _misfit(folder: Path, why: str) -> CheckpointError:
    problem = f"the adapter in {folder} does not fit this base model: {why}"
    return CheckpointError(problem, fix="choose the base model that it was trained on")


def _is_copy(key: str, stored: Mapping[str, Any]) -> bool:
    """Whether a tensor is there under its plain name too: peft stores a resized layer that is trained whole twice."""
    other = stored.get(key.replace(".modules_to_save.", "."))
    return key.count(".modules_to_save.") == 1 and other is not None and bool((other == stored[key]).all())


def _make_room(model: Any, folder: Path) -> None:
    """Give the base the rows of the larger vocabulary that the adapter was trained with; they are in its file."""
    from safetensors import safe_open

    file, embedding = folder / "adapter_model.safetensors", model.get_input_embeddings()
    name = next((name for name, module in model.named_modules() if module is embedding), None)
    if name is None or not file.is_file():
        return
    with safe_open(file, "pt") as stored:
        shapes = {key: stored.get_slice(key).get_shape() for key in stored.keys()}  # noqa: SIM118 - no mapping
    rows = shapes.get(f"base_model.model.{name}.weight", [0])[0]
    rows = max(rows, shapes.get(f"base_model.model.{name}.lora_embedding_A", [0])[-1])
    if rows > embedding.weight.shape[0]:
        resize_vocabulary(model, rows)


def keep_whole_layers_in_fp32(model: Any) -> Any:
    """Hold the trained copies of whole layers in fp32 over a half-precision base; return the model.

    A norm's weight is near 1, where bf16 has steps of 0.008: updates of 1e-4 would all round away.
    The layer computes in fp32 and hands on what its base would have.
    """
    import torch
    from peft.utils import ModulesToSaveWrapper

    for wrapper in model.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        dtype = next(wrapper.original_module.parameters()).dtype
        for layer in wrapper.modules_to_save.values():
            # A tied head is the same layer under a second name, and a second adapter comes to a loaded model.
            if dtype in (torch.bfloat16, torch.float16) and not layer._forward_pre_hooks:
                layer.float()
                layer.register_forward_pre_hook(_to_fp32)
                layer.register_forward_hook(_cast_to(dtype))
    return model


def _to_fp32(layer: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    import torch

    return tuple(one.float() if torch.is_tensor(one) and one.is_floating_point() else one for one in inputs)


def _cast_to(dtype: Any) -> Any:
    def cast(layer: Any, inputs: Any, output: Any) -> Any:
        return output.to(dtype)

    return cast
