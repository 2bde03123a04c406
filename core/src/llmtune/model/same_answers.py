"""Whether two forms of a model compute the same: compared at run time, because what differs shows nowhere else."""

from __future__ import annotations

from typing import Any

from llmtune.errors import CheckpointError

_POSITIONS, _ROWS = 64, 2
_DIFFERENCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
"""What rounding of merged weights adds up to at most, as a share of the logits (root mean squares); by the dtype."""


def probe_logits(model: Any) -> Any:
    """Return the logits, float32 on the CPU, of tokens from the whole vocabulary, the last ones included."""
    import torch

    size = model.get_input_embeddings().weight.shape[0]
    numbers = torch.linspace(0, size - 1, _ROWS * _POSITIONS).long()
    order = torch.arange(_ROWS * _POSITIONS).view(_POSITIONS, _ROWS).T  # each row from the first to the last
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=numbers[order].to(model.device), use_cache=False).logits
    model.train(was_training)
    return logits.float().cpu()


def check_same_answers(expected: Any, found: Any, dtype: Any, what: str) -> None:
    """Raise `CheckpointError` where `found` are other logits than `expected`, beyond what rounding to `dtype` explains.

    `what` says what should have left the model as it was, for the message.
    """
    allowed = _DIFFERENCE.get(str(dtype).removeprefix("torch."), _DIFFERENCE["bfloat16"])
    difference = float("nan")
    if found.shape == expected.shape:
        difference = ((found - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()
    if difference <= allowed:
        return
    problem = f"{what} would change the size of the vocabulary, {expected.shape[-1]} to {found.shape[-1]}"
    if found.shape == expected.shape:
        largest, of = (found - expected).abs().max().item(), expected.abs().max().item()
        problem = (
            f"{what} would change what the model answers: its logits differ by {difference:.1%} (rounding explains "
            f"{allowed:.1%}), the largest by {largest:.3g} of {of:.3g}"
        )
    fix = "nothing was written; answer with the checkpoint itself (llmtune infer --ckpt_dir), and report this"
    raise CheckpointError(problem, fix=fix)
