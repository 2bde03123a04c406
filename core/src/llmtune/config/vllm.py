"""Flags of the engine `vllm`."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class VllmSection(Section):
    """vLLM"""

    gpu_memory_utilization: float = pending(0.9, gt=0, le=1, description="Share of GPU memory that vLLM may take.")
    tensor_parallel_size: int = pending(1, ge=1, description="GPUs that share the model.")
    max_num_seqs: int = pending(256, ge=1, description="Requests that are answered together.")
    max_model_len: int | None = pending(None, ge=1, description="Longest sequence. None: the model's own.")
    disable_custom_all_reduce: bool = pending(True, description="Use NCCL instead of vLLM's own all-reduce.")
    enforce_eager: bool = pending(False, description="Build no CUDA graphs: less memory, slower.")
    vllm_enable_lora: bool = pending(False, description="Serve adapters without merging them.")
    vllm_max_lora_rank: int = pending(16, ge=1, description="Highest rank of served adapters.")
