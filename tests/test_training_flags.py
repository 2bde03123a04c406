"""Flags of training whose effect is in the log or in the files of a run."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from command_line import Llmtune, without
from safetensors.torch import load_file

from llmtune.testing.tiny import load_tiny

STEPS = 6


def logged(folder: Path) -> list[dict[str, float]]:
    (path,) = folder.rglob("logging.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def flags(tiny_flags: list[str]) -> list[str]:
    return [*without(tiny_flags, "--max_steps"), "--max_steps", str(STEPS), "--logging_steps", "1"]


def test_the_learning_rate_ends_at_min_lr(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    rates = ("--learning_rate", "1e-3", "--min_lr", "4e-4", "--warmup_ratio", "0")
    assert llmtune("sft", *flags, *rates).code == 0
    found = [line["learning_rate"] for line in logged(tmp_path) if "learning_rate" in line]
    assert found[0] == 1e-3
    assert found == sorted(found, reverse=True)
    assert 4e-4 < found[-1] < 5e-4, "one step before the end"


def test_the_best_checkpoint_is_named_with_its_own_value(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    """At a high learning rate the first evaluation is the best one."""
    done = llmtune("sft", *flags, "--learning_rate", "3", "--eval_steps", "2", "--warmup_ratio", "0")
    assert done.code == 0, done.err
    values = {line["step"]: line["eval_loss"] for line in logged(tmp_path) if "eval_loss" in line}
    step = min(values, key=values.get)
    assert step != max(values)
    assert re.search(rf"best checkpoint: .*/checkpoint-{step} \(eval_loss {values[step]:.4f}\)", done.out), done.out


def test_tokens_are_counted_where_it_is_asked_for(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    """Padding is no token: without it, with it and in two micro-batches the numbers are the same."""
    counts = []
    for number, more in enumerate([(), ("--padding_free", "false"), ("--micro_batch_tokens", "64")]):
        output = ("--output_dir", str(tmp_path / str(number)))
        asked = ("--include_num_input_tokens_seen", "true", "--batch_size", "2")
        assert llmtune("sft", *without(flags, "--output_dir"), *output, *asked, *more).code == 0
        lines = [line for line in logged(tmp_path / str(number)) if "loss" in line]
        counts.append([line["num_input_tokens_seen"] for line in lines])
    assert counts[0] == counts[1] == counts[2]
    assert counts[0] == sorted(set(counts[0]))
    assert llmtune("sft", *flags).code == 0
    assert all("num_input_tokens_seen" not in line for line in logged(tmp_path / "output"))


def test_a_trial_of_the_memory_begins_with_the_longest_rows(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    asked = ("--include_num_input_tokens_seen", "true", "--test_oom_error", "true", "--dataset_test_ratio", "0")
    rows = tmp_path / "rows.jsonl"
    lengths = [3, 90, 7, 41, 12, 77, 25, 60, 5, 33, 81, 18]
    rows.write_text("\n".join(json.dumps({"query": "a", "response": "b" * length}) for length in lengths))
    at = flags.index("--dataset")
    own = [*flags[:at], "--dataset", str(rows), *flags[at + 2 :]]
    assert llmtune("sft", *own, *asked).code == 0
    seen = [0, *(line["num_input_tokens_seen"] for line in logged(tmp_path) if "loss" in line)]
    steps = [later - before for before, later in pairwise(seen)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] - steps[-1] == (90 + 81) - (3 + 5)


def test_full_determinism_asks_torch_for_it(llmtune: Llmtune, flags: list[str], tmp_path: Path) -> None:
    try:
        assert llmtune("sft", *flags, "--full_determinism", "true").code == 0
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    weights = load_file(next(tmp_path.rglob(f"checkpoint-{STEPS}/adapter_model.safetensors")))
    assert any(value.abs().max() > 0 for value in weights.values())


def test_a_dry_run_tells_what_a_step_takes(llmtune: Llmtune, flags: list[str], tiny: Path) -> None:
    done = llmtune("sft", *flags, "--target_modules", "ALL", "--dry_run", "--dataset_test_ratio", "0")
    assert done.code == 0, done.err
    kept = re.search(r"([\d.]+) MB of activations for each token that is computed at once", done.out)
    assert kept, done.out
    assert float(kept[1]) > 0
    assert re.search(
        r"s for a step of [\d,]+ tokens on this machine, at [\d,]+ GFLOP/s; [\d.]+ minutes in all", done.out
    )


def test_what_a_token_costs_is_what_its_passes_take(tiny: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from llmtune.model.step_cost import step_cost

    model = load_tiny(tiny).model
    model.set_attn_implementation("eager")  # matrix products that can be counted
    with FlopCounterMode(display=False) as counted:
        ids = torch.zeros(1, 512, dtype=torch.int64)
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    cost = step_cost(model.to("meta"))
    assert cost is not None
    # FlashAttention computes one of attention's six products a second time.
    assert 1 < cost.operations * 512 / counted.get_total_flops() < 7 / 6
    linear = sum(one.numel() for name, one in model.named_parameters() if "proj" in name or "lm_head" in name)
    assert cost.operations > 6 * linear
    layers = 2 * 4 * (12 * 32 + 3 * 64)  # at least so many float32 values are kept by each of the two layers
    assert layers < cost.kept_bytes < 4 * layers
