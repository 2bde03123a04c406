"""What the processes of one run (its ranks) agree on. In a run of one process every call does nothing.

First they meet: the data is prepared by one rank and found by the others before any process group exists,
however long that takes. Then they are connected, by two groups: one for the gradients and one of gloo on
the CPU for what this module sends, so that a GPU is never waited for.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from llmtune.config import environment
from llmtune.errors import Interrupted, UsageError

Result = TypeVar("Result")

_GRADIENTS = dt.timedelta(minutes=30)
_CONTROL = dt.timedelta(days=7)
_SECONDS_BETWEEN_LOOKS = 0.05
_count = itertools.count()


def _several() -> bool:
    return environment.is_worker() and environment.world()[1] > 1


@contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in the first process of each machine, then in the others; they need not be connected.

    For what fills a cache: the others find it there instead of writing the same files.
    """
    if not _several():
        yield
        return
    first_rank, local_rank = environment.world()[0] - environment.local_rank(), environment.local_rank()
    done = f"llmtune/{next(_count)}/{first_rank}"
    while local_rank and not _meeting_point().check([done]):  # looks again and again: Ctrl-C ends it
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    yield
    if not local_rank:
        _meeting_point().set(done, "done")


@functools.cache
def _meeting_point() -> Any:
    """The key-value store of the launcher (torchrun) or of rank 0, at MASTER_ADDR:MASTER_PORT."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", timeout=_GRADIENTS))
    return store


@contextmanager
def joined(backend: str | None) -> Iterator[None]:
    """Connect this process with the other ranks for the block; `backend` carries their gradients."""
    if not _several():
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
    from torch.distributed.distributed_c10d import PrefixStore

    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    rank, size = environment.world()
    store = PrefixStore("torch", _meeting_point())
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_GRADIENTS)
    _control()


def check_backend(backend: str | None) -> None:
    """Raise `UsageError` for a backend that cannot connect the processes of this machine."""
    if backend is None or not _several():
        return
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


def gather_objects(mine: Result) -> list[Result]:
    """Return what every rank brings, in the order of the ranks; all of them get it."""
    if _alone():
        return [mine]
    from torch import distributed

    found: list[Result] = [mine] * distributed.get_world_size()
    distributed.all_gather_object(found, mine, group=_control())
    return found


def count() -> int:
    """Return the number of ranks that are connected."""
    if _alone():
        return 1
    from torch import distributed

    return distributed.get_world_size()


def gather(numbers: Sequence[int]) -> list[list[int]]:
    """Return the numbers of every rank, by rank; all ranks have equally many."""
    if _alone():
        return [list(numbers)]
    import torch
    from torch import distributed

    together = [torch.empty(len(numbers), dtype=torch.int64) for _ in range(count())]
    distributed.all_gather(together, torch.tensor(numbers, dtype=torch.int64), group=_control())
    return [one.tolist() for one in together]


def number() -> int:
    """Return the number of this rank among those that are connected."""
    if _alone():
        return 0
    from torch import distributed

    return distributed.get_rank()


def total(numbers: Sequence[float]) -> list[float]:
    """Return the sums over all ranks, in float64 and in the order of the ranks."""
    if _alone():
        return list(numbers)
    import torch
    from torch import distributed

    together = [torch.empty(len(numbers), dtype=torch.float64) for _ in range(count())]
    distributed.all_gather(together, torch.tensor(numbers, dtype=torch.float64), group=_control())
    return torch.stack(together).sum(dim=0).tolist()


def smallest(number: int) -> int:
    """Return the smallest of the ranks' numbers."""
    return min(one for (one,) in gather([number]))


def largest(number: int) -> int:
    """Return the largest of the ranks' numbers."""
    return max(one for (one,) in gather([number]))
