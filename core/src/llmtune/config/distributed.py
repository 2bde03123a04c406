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
    fsdp: str = Field(
        "",
        description="Share the model among processes (FSDP2): full_shard, shard_grad_op or hybrid_shard; offload adds "
        "the RAM.",
    )
    fsdp_config: str | dict[str, Any] | None = Field(None, description="Settings of FSDP: a JSON file or JSON.")
    fsdp_num: int = Field(1, ge=1, description="Processes that share one copy of the model. 1: all of them.")
    model_layer_cls_name: str | None = Field(
        None, description="Class of the layers that FSDP gathers one at a time. None: the decoder layers."
    )
    sequence_parallel_size: int = Field(
        1, ge=1, description="Processes that compute one sequence together, each a part of its tokens (Ulysses)."
    )
    sequence_parallel: bool = pending(False, description="Sequence parallelism of Megatron.")
    tp: int = pending(1, ge=1, description="Tensor parallel size of Megatron.")
    pp: int = pending(1, ge=1, description="Pipeline parallel size of Megatron.")

    def readers(self, world_size: int) -> int:
        """Return how many processes, or groups that share a sequence, have rows of their own."""
        return world_size // self.sequence_parallel_size
