"""What this machine computes on."""

from __future__ import annotations


def auto_dtype(preferred: str | None = None) -> tuple[str, str]:
    """Return (dtype, the rule that chose it) for AUTO on this machine.

    `preferred` is the model's own from its manifest. bf16 where the device computes in it, else
    fp16 on a GPU and fp32 on a CPU (where fp16 is slower than fp32).
    """
    import torch

    if preferred:
        return preferred, "the model's own"
    if torch.cuda.is_available():
        return ("bf16", "the GPU has bf16") if torch.cuda.is_bf16_supported() else ("fp16", "the GPU lacks bf16")
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bf16", "the CPU has bf16"
    return "fp32", "the CPU lacks bf16"


def device_count() -> int:
    """Return how many devices a model can be spread over: the GPUs, or the CPU alone."""
    import torch

    return torch.cuda.device_count() or 1
