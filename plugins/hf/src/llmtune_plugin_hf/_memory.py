"""How much of a step is computed at once: as much as memory holds, found by a short probe before the first step."""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llmtune.api import Encoded, MicroBatches, OutOfMemory, Padded, PaddingFree, TrainingJob, local_world_size, ranks
from llmtune_plugin_hf._passes import Passes

_FILE = "micro_batches.json"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_BUSY = {"cpu": 512, "cuda": 4096}
"""Tokens that keep a device busy (docs/performance.md): nothing is computed twice to have more at once."""
_MOST = {"cpu": 512, "cuda": 65536}
_KEPT_FREE = 0.08
"""Share of the memory for what the probe does not see: fragments, buffers of NCCL, samples of other lengths."""
_OF_THE_RAM = 0.5
_SAMPLE = 512
"""Tokens of each sample of the probe."""
_SIZES = {"cpu": (64, 128), "cuda": (512, 2048)}
"""Tokens of the two micro-batches whose difference is what a token takes."""


@dataclass(frozen=True)
class Plan:
    """What is computed at once, and whether activations are computed again in the backward pass."""

    cut: MicroBatches
    recompute: bool

    def write(self, folder: Path) -> None:
        """Store it in a checkpoint: a resumed run is cut as the run was."""
        size = {"tokens": self.cut.tokens} if isinstance(self.cut, PaddingFree) else {"rows": self.cut.rows}
        (folder / _FILE).write_text(json.dumps({**size, "recompute": self.recompute}), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Plan | None:
        """Return what `write` stored, None in a checkpoint without it."""
        if not (folder / _FILE).is_file():
            return None
        content = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        cut: MicroBatches = PaddingFree(content["tokens"]) if "tokens" in content else Padded(content["rows"])
        return cls(cut, content["recompute"])

    def __str__(self) -> str:
        again = ", activations are computed again in the backward pass" if self.recompute else ""
        return f"a forward pass computes {self.cut}{again}"


def find_plan(job: TrainingJob, passes: Passes, model: Any, base: Any, held: int) -> Plan:
    """Measure what a token takes on this process's device and return the plan, the same on every rank.

    `held` are bytes that training will take beside activations: gradients and the optimizer's state.
    """
    training, device = job.training, passes.forward.device
    may_recompute = training.gradient_checkpointing and base.supports_gradient_checkpointing
    if job.tuner.whole_steps:  # a probe would update parameters
        return Plan(PaddingFree(sys.maxsize) if passes.collate.padding_free else Padded(sys.maxsize), may_recompute)
    asked = training.micro_batch_tokens if passes.collate.padding_free else training.batch_size * _longest(job)
    free = _free(device, training.gpu_memory_fraction) - held
    tokens, recompute = _fitting(passes, model, free), False
    most, busy = (one[device.type] * passes.forward.parallel.size for one in (_MOST, _BUSY))
    enough = asked or max(busy, min(_longest(job), most))
    if may_recompute and ranks.smallest(tokens) < min(enough, _most_in_a_step(job)):
        recompute = True
        with recomputing(base):
            tokens = _fitting(passes, model, free)
    tokens = max(1, ranks.smallest(min(tokens, most)))
    cut: MicroBatches = PaddingFree(asked or tokens)
    return Plan(cut if passes.collate.padding_free else Padded(training.batch_size), recompute)


def lowered(plan: Plan, job: TrainingJob, lengths: list[int], base: Any) -> Plan:
    """Return what to try when memory did not hold a step of these rows; the same on every rank."""
    smaller = plan.cut.smaller(lengths)
    size = _size(smaller) if smaller else sys.maxsize
    agreed = ranks.smallest(size)
    may_recompute = job.training.gradient_checkpointing and base.supports_gradient_checkpointing
    if may_recompute and not plan.recompute and (agreed == sys.maxsize or not _still_busy(plan.cut, agreed)):
        return replace(plan, recompute=True)
    if agreed == sys.maxsize or job.tuner.whole_steps:
        raise OutOfMemory(
            f"memory does not hold the training of a single row of {max(lengths, default=0)} tokens",
            fix="lower --max_length, or use --quantization_bit 4, --fsdp full_shard or --deepspeed default-zero3",
        )
    cut: MicroBatches = PaddingFree(agreed) if isinstance(plan.cut, PaddingFree) else Padded(agreed)
    return replace(plan, cut=cut)


@contextlib.contextmanager
def recomputing(base: Any, wanted: bool = True) -> Iterator[None]:
    """Inside, activations are computed again in the backward pass."""
    set_recompute(base, wanted)
    try:
        yield
    finally:
        set_recompute(base, False)


def set_recompute(base: Any, wanted: bool) -> None:
    """Switch on or off that activations are computed again in the backward pass."""
    if wanted:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif getattr(base, "is_gradient_checkpointing", False):
        base.gradient_checkpointing_disable()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for training on a CPU; elsewhere nothing is done.

    Tensors of some MB come and go in every layer. Giving their pages back and getting cleared ones again took 6 % of
    a step (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for setting in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(setting, 1 << 30)


def held_bytes(job: TrainingJob, model: Any, *, optimizer_is_filled: bool) -> int:
    """Return bytes of gradients, and of what the optimizer is going to keep, on this process's device."""
    trained = [one for one in model.parameters() if one.requires_grad]
    own = sum(getattr(one, "_local_tensor", one).nbytes for one in trained)
    count = sum(one.numel() for one in trained)
    moments = 0.0 if optimizer_is_filled else job.tuner.optimizer_values(model) / max(count, 1)
    return int(own * (1 + moments))


def _fitting(passes: Passes, model: Any, free: int) -> int:
    """Return how many tokens fit into `free` bytes."""
    small, large = _SIZES[passes.forward.device.type]
    measure: Callable[..., int] = _peak_on_a_gpu if passes.forward.device.type == "cuda" else _kept
    try:
        first, second = (measure(passes, model, size) for size in (small, large))
    except torch.OutOfMemoryError:
        if passes.engine.in_parts and ranks.count() > 1:  # the others wait in this pass
            raise
        model.zero_grad(set_to_none=True)
        return 0
    each = max(1, (second - first) / (large - small))
    return max(0, int((free - (first - small * each)) / each))


def _peak_on_a_gpu(passes: Passes, model: Any, tokens: int) -> int:
    """Return the most bytes that a forward and a backward pass took beside what was there before."""
    device = passes.forward.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    batch = passes.collate(_probe(tokens))
    with torch.random.fork_rng([device]), passes.forward.samples_of(batch), passes.engine.without_sync(model):
        loss, _ = passes.forward.loss(model, batch)
        passes.engine.backward(0.0 * loss, last=False)
    model.zero_grad()
    return torch.cuda.max_memory_allocated(device) - before


def _kept(passes: Passes, model: Any, tokens: int) -> int:
    """Return the bytes that a forward pass keeps for the backward pass: the same on every run, unlike free RAM."""
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {getattr(one, "_local_tensor", one).untyped_storage().data_ptr() for one in model.parameters()}
    batch = passes.collate(_probe(tokens))
    with torch.random.fork_rng([]), passes.forward.samples_of(batch):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss, _ = passes.forward.loss(model, batch)
        del loss
    return sum(size for pointer, size in storages.items() if pointer not in weights)


def _probe(tokens: int) -> list[Encoded]:
    """Return samples of `tokens` tokens together, with a target everywhere: no micro-batch takes more."""
    sizes = [min(_SAMPLE, tokens - start) for start in range(0, tokens, _SAMPLE)]
    return [{"input_ids": [5] * size, "labels": [5] * size} for size in sizes]


def _free(device: torch.device, fraction: float | None) -> int:
    """Return the bytes that are free for this process: of its GPU, or its share of the RAM."""
    if device.type != "cuda":
        import psutil

        return int(psutil.virtual_memory().total * _OF_THE_RAM / local_world_size())
    free, total = torch.cuda.mem_get_info(device)
    own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    allowed = total * (fraction or 1.0) - torch.cuda.memory_allocated(device)
    return int(min(free + own, allowed) - _KEPT_FREE * total * (fraction or 1.0))


def _longest(job: TrainingJob) -> int:
    return max(job.lengths) if job.lengths else 1


def _most_in_a_step(job: TrainingJob) -> int:
    """Return the tokens that a step has at most: there is no use in a plan for more."""
    return _longest(job) * job.rows_in_a_step if job.lengths else sys.maxsize


def _size(cut: MicroBatches) -> int:
    return cut.tokens if isinstance(cut, PaddingFree) else cut.rows


def _still_busy(cut: MicroBatches, size: int) -> bool:
    return isinstance(cut, PaddingFree) and size >= _BUSY["cuda"]
