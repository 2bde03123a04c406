"""What this machine computes on."""

from __future__ import annotations


def auto_dtype(preferred: str | None = None) -> tuple[str, str]:
    """Return (dtype, the rule that chose it) for AUTO on this machine.

    A GPU without bf16 means fp16, whatever the model. Else `preferred`, the model's own from its
    manifest; else bf16, and fp32 on a CPU without it (where fp16 is slower than fp32).
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu and not torch.cuda.is_bf16_supported():
        return "fp16", "the GPU lacks bf16"
    if preferred:
        return preferred, "the model's own"
    if on_gpu:
        return "bf16", "the GPU has bf16"
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bf16", "the CPU has bf16"
    return "fp32", "the CPU lacks bf16"


def described_processes(count: int) -> str:
    """Return how many processes compute, each on what: "2 processes, each on one NVIDIA H200"."""
    import torch

    processes = "1 process" if count == 1 else f"{count} processes, each"
    if torch.cuda.is_available():
        return f"{processes} on one {torch.cuda.get_device_name()}"
    threads = torch.get_num_threads()
    return f"{processes} on the CPU with {threads} thread{'s' if threads > 1 else ''}"


def device_count() -> int:
    """Return how many devices a model can be spread over: the GPUs, or the CPU alone."""
    import torch

    return torch.cuda.device_count() or 1
