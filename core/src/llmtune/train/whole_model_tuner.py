"""What the tuners that train and store the model itself have in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmtune.errors import CheckpointError
from llmtune.interfaces.tuner import Tuner


class WholeModelTuner(Tuner):
    """Trains the weights of the model itself; a checkpoint is a whole model. Subclasses say which of them."""

    def save(self, model: Any, folder: Path) -> None:
        model.save_pretrained(folder)

    def load(self, model: Any, folder: Path, *, trainable: bool = False) -> Any:
        """Read `folder`, in one file or in shards, over the base's weights."""
        from safetensors.torch import load_file

        files = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise CheckpointError(f"{folder} holds no whole model (no model*.safetensors)", fix="check --sft_type")
        weights = {name: tensor for file in files for name, tensor in load_file(file).items()}
        with _whole(model):
            missing, unexpected = model.load_state_dict(weights, strict=False)
        missing = _not_tied(model, missing)
        if missing or unexpected:
            wrong = f"missing {', '.join(missing) or 'nothing'}, too many {', '.join(unexpected) or 'nothing'}"
            raise CheckpointError(f"{folder} holds another model: {wrong}", fix="check --model_type")
        return self.prepare(model) if trainable else model


@contextmanager
def _whole(model: Any) -> Iterator[None]:
    """Inside, every parameter is whole, and what rank 0 puts there is kept: ZeRO-3 has shared them already."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters()), modifier_rank=0):
        yield


def _not_tied(model: Any, names: list[str]) -> list[str]:
    """Leave out names of parameters that are stored once under another name (a tied output head)."""
    named = dict(model.named_parameters(remove_duplicate=False))
    others = {id(tensor) for name, tensor in named.items() if name not in names}
    return [name for name in names if id(named.get(name)) not in others]
