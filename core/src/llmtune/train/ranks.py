"""What the processes of one run (its ranks) agree on. In a run of one process every call does nothing.

They talk over a group of their own: gloo on the CPU, whatever the gradients travel over. A GPU is never
waited for, and a wait may last as long as a download, which NCCL would take for a dead process.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from llmtune.config import environment
from llmtune.errors import Interrupted, UsageError

Result = TypeVar("Result")

_GRADIENTS = dt.timedelta(minutes=30)
_CONTROL = dt.timedelta(days=7)


@contextmanager
def joined(backend: str | None) -> Iterator[None]:
    """Connect this process with the other ranks for the block; `backend` carries their gradients."""
    if not environment.is_worker() or environment.world()[1] == 1:
        yield
        return
    _connect(backend or "gloo")
    try:
        yield
    except Interrupted:  # raised by all ranks after the same step
        _leave()
        raise
    _leave()


def _connect(backend: str) -> None:
    import torch
    from torch import distributed

    _check_backend(backend)
    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    distributed.init_process_group(backend, timeout=_GRADIENTS)
    _control()


def _check_backend(backend: str) -> None:
    import torch
    from torch import distributed

    devices, wanted = torch.cuda.device_count(), environment.local_world_size()
    if not distributed.is_backend_available(backend) or (backend == "nccl" and not devices):
        raise UsageError(f"--ddp_backend {backend} does not work on this machine", fix="leave the flag out, or: gloo")
    if backend == "nccl" and wanted > devices:
        raise UsageError(
            f"{wanted} processes were asked for on a machine with {devices} visible GPUs",
            fix=f"NPROC_PER_NODE={devices}, or let CUDA_VISIBLE_DEVICES name more",
        )


def _leave() -> None:
    """End together: a rank that ends alone would be taken for one that failed."""
    from torch import distributed

    wait()
    _control.cache_clear()
    distributed.destroy_process_group()


@functools.cache
def _control() -> Any:
    """The group of this module; like torch's own default group there is one in a process."""
    from torch import distributed

    return distributed.new_group(backend="gloo", timeout=_CONTROL)


def _alone() -> bool:
    from torch import distributed

    return not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1


def is_first() -> bool:
    """Whether this process writes for all: rank 0, or the only one."""
    return environment.world()[0] == 0


def wait() -> None:
    """Return when every rank has called this."""
    if not _alone():
        from torch import distributed

        distributed.barrier(group=_control())


def share(make: Callable[[], Result]) -> Result:
    """Call `make` on rank 0 alone and return its result on every rank."""
    if _alone():
        return make()
    from torch import distributed

    box = [make() if is_first() else None]
    distributed.broadcast_object_list(box, src=0, group=_control())
    result: Result = box[0]  # type: ignore[assignment]
    return result


def largest(number: int) -> int:
    """Return the largest of the ranks' numbers."""
    if _alone():
        return number
    import torch
    from torch import distributed

    numbers = torch.tensor([number])
    distributed.all_reduce(numbers, op=distributed.ReduceOp.MAX, group=_control())
    return int(numbers)


@contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in the first process of each machine, then in the others.

    For what fills a cache: the others find it there instead of writing the same files.
    """
    first = environment.local_rank() == 0
    if not first:
        wait()
    yield
    if first:
        wait()
