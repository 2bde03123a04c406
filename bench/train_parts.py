"""What the parts of a training step take on a CPU, beside what torch, transformers and peft have in their place.

python bench/train_parts.py [--rounds 7] [NAME ...]

All take turns in one process; a figure is the median of the rounds' ratios. The shapes are SmolLM2-135M's, in bf16.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F

from llmtune.model.step_cost import rate_of_products
from llmtune.table import text_table
from llmtune_plugin_hf._short_attention import short_attention
from llmtune_plugin_hf._token_losses import token_losses
from llmtune_plugin_lora._fused import fuse

HEADS, KEY_HEADS, HEAD_SIZE, WIDTH, INNER, WORDS = 9, 3, 64, 576, 1536, 49152
TOKENS = 512

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(PARTS)}; default all")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads; a product of 1,024 x 1,024 in bf16: ", end="")
    print(f"{rate_of_products(torch.bfloat16) / 1e9:,.0f} GFLOP/s")
    for name in given.names or PARTS:
        print(f"\n== {PARTS[name].__doc__}")
        PARTS[name](given.rounds)


def attention(rounds: int) -> None:
    """Forward and backward pass of causal attention over one sample, against sdpa."""
    rows = []
    for tokens in (64, 128, 256, 384, 512, 640, 768, 1024):
        sizes = [(1, heads, tokens, HEAD_SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
        inputs = [torch.randn(size).bfloat16().requires_grad_() for size in sizes]
        hidden = torch.zeros(tokens, tokens).masked_fill(torch.ones(tokens, tokens).triu(1).bool(), float("-inf"))

        def own(inputs: list[torch.Tensor] = inputs, hidden: torch.Tensor = hidden) -> None:
            short_attention(*inputs, hidden, HEAD_SIZE**-0.5).float().sum().backward()

        def sdpa(inputs: list[torch.Tensor] = inputs) -> None:
            F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True).float().sum().backward()

        rows.append([f"{tokens} tokens", *compared({"llmtune": own, "sdpa": sdpa}, rounds)])
    show(rows, "sdpa")


def adapters(rounds: int) -> None:
    """Forward and backward pass of a linear layer with LoRA of rank 8, against peft's."""
    rows = []
    for inputs, outputs in ((WIDTH, WIDTH), (WIDTH, INNER), (INNER, WIDTH)):
        for dropout in (0.0, 0.05):
            x = torch.randn(TOKENS, inputs).bfloat16().requires_grad_()
            layers = {"llmtune": fuse(adapted(inputs, outputs, dropout)), "peft": adapted(inputs, outputs, dropout)}

            def step(layer: nn.Module, x: torch.Tensor = x) -> None:
                layer(x).float().sum().backward()

            steps = {name: lambda layer=layer, step=step: step(layer) for name, layer in layers.items()}
            rows.append([f"{inputs} to {outputs}, dropout {dropout}", *compared(steps, rounds)])
    show(rows, "peft")


def adapted(inputs: int, outputs: int, dropout: float) -> nn.Module:
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=False)).bfloat16()
    model.config = None
    return get_peft_model(model, LoraConfig(r=8, lora_dropout=dropout, target_modules=["0"])).train()


def losses(rounds: int) -> None:
    """Losses of 512 tokens and the gradient of their logits, against torch's cross-entropy in float32."""
    logits = torch.randn(TOKENS, WORDS).bfloat16().requires_grad_()
    targets = torch.randint(WORDS, (TOKENS,))

    def own() -> None:
        token_losses(logits, targets).sum().backward()

    def torchs() -> None:
        F.cross_entropy(logits.float(), targets, reduction="sum").backward()

    show([["losses", *compared({"llmtune": own, "torch": torchs}, rounds)]], "torch")


def sizes(rounds: int) -> None:
    """Forward and backward pass of a layer's products for some tokens at a time: what keeps the processor busy."""
    weights = [torch.randn(size).bfloat16() for size in ((INNER, WIDTH), (INNER, WIDTH), (WIDTH, INNER))]
    total, rows = 4096, []

    def of(tokens: int) -> Step:
        parts = [torch.randn(tokens, WIDTH).bfloat16().requires_grad_() for _ in range(total // tokens)]

        def step() -> None:
            for x in parts:
                gate, up, down = weights
                ((F.silu(x @ gate.t()) * (x @ up.t())) @ down.t()).float().sum().backward()

        return step

    counts = (64, 128, 256, 512, 1024, 2048, 4096)
    seconds = measured({str(count): of(count) for count in counts}, rounds)
    for count in counts:
        ratios = [one / whole for one, whole in zip(seconds[str(count)], seconds[str(total)], strict=True)]
        rows.append([f"{count} tokens at a time", f"{statistics.median(ratios):.2f}"])
    print(text_table(["", f"time against {total} at a time"], rows))


def measured(steps: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each in every round, in which all take turns; the first round is not counted."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            repeats, started = 0, time.perf_counter()
            while repeats < 2 or time.perf_counter() - started < 0.2:
                step()
                repeats += 1
            found[name].append((time.perf_counter() - started) / repeats)
    return {name: seconds[1:] for name, seconds in found.items()}


def compared(steps: Mapping[str, Step], rounds: int) -> list[str]:
    """Return milliseconds of both, and the median ratio of the first to the second."""
    first, second = measured(steps, rounds).values()
    ratio = statistics.median(one / other for one, other in zip(first, second, strict=True))
    return [f"{1000 * statistics.median(one):.2f}" for one in (first, second)] + [f"{ratio:.2f}"]


def show(rows: list[list[str]], other: str) -> None:
    print(text_table(["", "llmtune ms", f"{other} ms", "ratio"], rows))


PARTS = {one.__name__: one for one in (attention, adapters, losses, sizes)}

if __name__ == "__main__":
    main()
