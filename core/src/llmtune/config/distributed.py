"""Flags about training in several processes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llmtune.config.section import Section, pending


class DistributedSection(Section):
    """Distributed"""

    ddp_backend: Literal["nccl", "gloo", "mpi", "ccl", "hccl"] | None = Field(
        None, description="How processes talk to each other. None: nccl on GPUs, else gloo."
    )
    ddp_find_unused_parameters: bool | None = Field(
        None, description="Look for parameters that a step does not use. None: no."
    )
    ddp_broadcast_buffers: bool | None = Field(
        None, description="Copy buffers of rank 0 in each forward pass. None: no."
    )
    deepspeed: str | dict[str, Any] | None = pending(
        None, description="DeepSpeed: default-zero2, default-zero3, a JSON file or JSON."
    )
    fsdp: str = pending("", description="FSDP: full_shard, auto_wrap, offload ...")
    fsdp_config: str | dict[str, Any] | None = pending(None, description="Settings of FSDP: a JSON file or JSON.")
    fsdp_num: int = pending(1, ge=1, description="Processes that share one copy of the model.")
    model_layer_cls_name: str | None = pending(None, description="Class of the layers that FSDP wraps.")
    sequence_parallel_size: int = pending(1, ge=1, description="GPUs that share one sequence.")
    sequence_parallel: bool = pending(False, description="Sequence parallelism of Megatron.")
    tp: int = pending(1, ge=1, description="Tensor parallel size of Megatron.")
    pp: int = pending(1, ge=1, description="Pipeline parallel size of Megatron.")
