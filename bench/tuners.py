"""What the papers of the tuners promise, seen in small experiments on a CPU: tables, and plots as PNG.

python bench/tuners.py [--output FOLDER] [NAME ...]

The models are random Llamas of real architecture; the task is to continue repeated patterns. Numbers are
losses, bytes, ranks, norms and counted multiplications; nothing here depends on how busy the machine is.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

from llmtune.table import text_table
from llmtune.testing import create, load_tiny, run_context, tiny_model
from llmtune.testing.tuner import Training, batch

mpl.use("Agg")
import matplotlib.pyplot as plt

EVERYWHERE = {"target_modules": ["ALL"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(EXPERIMENTS)}; default all")
    parser.add_argument("--output", type=Path, default=Path("bench-tuners"), help="folder of the plots")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in given.names or EXPERIMENTS:
        print(f"\n== {EXPERIMENTS[name].__doc__.splitlines()[0]}")
        EXPERIMENTS[name](given.output / f"{name}.png")


def base(hidden_size: int = 64, initializer_range: float = 0.2, seed: int = 0, **kwargs: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = tiny_model(Path(folder), hidden_size=hidden_size, initializer_range=initializer_range, seed=seed)
        return load_tiny(path, kwargs=kwargs).model


def training(name: str, options: dict[str, Any], rate: float, steps: int | None = None, **model: Any) -> Training:
    """A prepared model and its tuner, ready for `fit`."""
    tuner = create("tuner", name, options, run_context(steps=steps))
    seed = model.pop("adapter_seed", 0)
    loaded = base(**model)
    torch.manual_seed(seed)
    return Training(tuner, tuner.prepare(loaded), learning_rate=rate)


def plot(path: Path, title: str, x: str, y: str, draw: Callable[[Any], None]) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    draw(axes)
    axes.set(title=title, xlabel=x, ylabel=y)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    print(f"plot: {path}")


def adalora(path: Path) -> None:
    """AdaLoRA moves rank to the layers that need it (Zhang et al., figure 3): ranks left of 12 each, 4 on average"""
    options = {**EVERYWHERE, "adalora_init_r": 12, "adalora_target_r": 4, "adalora_tinit": 10, "adalora_tfinal": 30}
    run = training("adalora", options, 1e-2, steps=120)
    run.fit(120)
    ranks: dict[str, dict[int, int]] = {}
    for name, value in run.model.named_parameters():
        if found := re.search(r"layers\.(\d+)\.\w+\.(\w+)\.lora_E", name):
            ranks.setdefault(found[2], {})[int(found[1])] = int(torch.count_nonzero(value))
    layers = sorted(next(iter(ranks.values())))
    print(
        text_table(
            ["LAYER", *map(str, layers)], [[name, *(str(row[n]) for n in layers)] for name, row in ranks.items()]
        )
    )
    total = [rank for row in ranks.values() for rank in row.values()]
    print(f"ranks from {min(total)} to {max(total)}, {sum(total) / len(total):.2f} on average")

    def draw(axes: Any) -> None:
        image = axes.imshow([[row[n] for n in layers] for row in ranks.values()], aspect="auto")
        axes.set_yticks(range(len(ranks)), ranks)
        axes.set_xticks(layers)
        axes.figure.colorbar(image)

    plot(path, "AdaLoRA: ranks after training", "layer", "", draw)


def memory(path: Path) -> None:
    """LISA and GaLore need less optimizer memory than full fine-tuning: bytes of its state after 25 steps"""
    ways = {
        "full": ("full", {}),
        "lisa, 1 of 2 layers": ("lisa", {"lisa_activated_layers": 1, "lisa_step_interval": 5}),
        "galore, rank 32": ("galore", {"use_galore": True, "galore_rank": 32}),
        "galore, rank 32, 4-bit projections": (
            "galore",
            {"use_galore": True, "galore_rank": 32, "galore_quantization": True, "galore_proj_quant": True},
        ),
    }
    sizes = {}
    for label, (name, options) in ways.items():
        run = training(name, options, 1e-3, hidden_size=256, initializer_range=0.02)
        run.fit(25)
        sizes[label] = sum(_bytes(state.values()) for state in run.optimizer.state.values())
    rows = [[name, f"{size / 1e6:.2f} MB", f"{size / sizes['full']:.2f}"] for name, size in sizes.items()]
    print(text_table(["WAY", "OPTIMIZER", "RATIO"], rows))
    plot(
        path, "optimizer memory", "", "MB", lambda axes: axes.bar(list(sizes), [size / 1e6 for size in sizes.values()])
    )


def _bytes(values: Iterable[Any]) -> int:
    found = 0
    for value in values:
        if torch.is_tensor(value):
            found += value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple):
            found += _bytes(value.values() if isinstance(value, dict) else value)
    return found


def longlora(path: Path) -> None:
    """LongLoRA's attention grows linearly with the length at a fixed group (Chen et al., table 6): G multiplications"""
    from torch.utils.flop_counter import FlopCounterMode

    lengths, group = (256, 512, 1024, 2048), 128
    model = {"attn_implementation": "eager"}  # the counter does not know the fused kernel of CPUs
    runs = {
        "full attention": training("lora", EVERYWHERE, 1e-3, **model),
        f"groups of {group}": training("longlora", {**EVERYWHERE, "longlora_group_size": group}, 1e-3, **model),
    }
    counted: dict[str, list[float]] = {}
    for label, run in runs.items():
        run.model.train()
        for length in lengths:
            ids = torch.zeros(1, length, dtype=torch.long)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                run.model(input_ids=ids)
            attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
            counted.setdefault(label, []).append(attention / 1e9)
    rows = [[name, *(f"{one:.4f}" for one in row), f"{row[-1] / row[-2]:.2f}"] for name, row in counted.items()]
    print(text_table(["ATTENTION", *map(str, lengths), "LAST / ONE BEFORE"], rows))

    def draw(axes: Any) -> None:
        for label, row in counted.items():
            axes.loglog(lengths, row, marker="o", label=label)
        axes.legend()

    plot(path, "multiplications of attention", "tokens", "G", draw)


def loraplus(path: Path) -> None:
    """LoRA+ beats LoRA at equal steps (Hayou et al.): loss after 40 steps, the best of 5 learning rates, 5 seeds"""
    rates, seeds, steps = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), range(5), 40
    found: dict[str, dict[float, float]] = {}
    for label, ratio in (("LoRA", None), ("LoRA+, ratio 16", 16.0)):
        options = {**EVERYWHERE, "lora_rank": 4, "lora_dropout": 0.0, "lora_lr_ratio": ratio}
        for rate in rates:
            # Equal in the faster of the two factors' rates, so that neither is cut off from its best.
            own = rate if ratio is None else rate / ratio**0.5
            losses = [
                training("lora", options, own, hidden_size=128, adapter_seed=seed).fit(steps)[-1] for seed in seeds
            ]
            found.setdefault(label, {})[own] = sum(losses) / len(losses)
    for label, losses in found.items():
        print(
            text_table(
                ["RATE OF A", f"LOSS: {label}"], [[f"{rate:.1e}", f"{loss:.4f}"] for rate, loss in losses.items()]
            )
        )
    best = {label: min(losses.values()) for label, losses in found.items()}
    print(", ".join(f"{label}: {loss:.4f} at best" for label, loss in best.items()))

    def draw(axes: Any) -> None:
        for label, losses in found.items():
            axes.loglog(list(losses), list(losses.values()), marker="o", label=label)
        axes.legend()

    plot(path, f"loss after {steps} steps", "learning rate of A", "loss", draw)


def rslora(path: Path) -> None:
    """rsLoRA keeps its gradient norm at rank 256 (Kalajdzievski, figure 2): mean over 20 steps, relative to rank 4

    The learning rate is so low that the loss stays where it was: a falling loss has a falling gradient at any rank.
    """
    ranks = (4, 16, 64, 256)
    norms: dict[str, list[float]] = {}
    for label, stabilized in (("LoRA", False), ("rsLoRA", True)):
        for rank in ranks:
            options = {**EVERYWHERE, "lora_rank": rank, "lora_alpha": 16, "lora_dropout": 0.0, "use_rslora": stabilized}
            norms.setdefault(label, []).append(_gradient_norm(training("lora", options, 1e-6, hidden_size=256)))
    rows = [[label, *(f"{one / row[0]:.3f}" for one in row)] for label, row in norms.items()]
    print(text_table(["RANK", *map(str, ranks)], rows))

    def draw(axes: Any) -> None:
        for label, row in norms.items():
            axes.loglog(ranks, [one / row[0] for one in row], marker="o", label=label)
        axes.legend()

    plot(path, "gradient norm, relative to rank 4", "rank", "norm", draw)


def _gradient_norm(run: Training) -> float:
    """Mean norm of the gradient over 20 steps, without the first 10, in which B leaves zero."""
    ids, norms = batch(run.model.config.vocab_size), []
    for _ in range(30):
        loss = run.model(input_ids=ids, labels=ids).loss
        loss.backward()
        parameters = [one for one in run.model.parameters() if one.requires_grad]
        norms.append(float(torch.nn.utils.get_total_norm([one.grad for one in parameters])))
        run.optimizer.step()
        run.optimizer.zero_grad()
    return sum(norms[10:]) / 20


EXPERIMENTS: dict[str, Callable[[Path], None]] = {
    "adalora": adalora,
    "memory": memory,
    "longlora": longlora,
    "loraplus": loraplus,
    "rslora": rslora,
}

if __name__ == "__main__":
    main()
