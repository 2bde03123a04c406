"""Two processes that share one model (FSDP2, DeepSpeed) train what one process trains, and hold a part of it each."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command_line import NAMES, Llmtune
from forked import forked_ranks
from safetensors.torch import load_file

WRITES_SIZES = """
import json
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_pre_hook

from llmtune.api import hookimpl


def size(tensor):
    if hasattr(tensor, "ds_tensor"):  # ZeRO-3
        return tensor.ds_tensor.numel()
    return getattr(tensor, "_local_tensor", tensor).numel()


@hookimpl
def llmtune_model_loaded(loaded, run):
    def write(optimizer, *arguments):
        handle.remove()
        updated = [one for group in optimizer.param_groups for one in group["params"]]
        found = {"held": sum(map(size, loaded.model.parameters())), "updated": sum(map(size, updated))}
        Path(__file__).with_name(f"{run.rank}.json").write_text(json.dumps(found))

    handle = register_optimizer_step_pre_hook(write)
"""

STEPS = 20
RUN = (
    *("--model_type", "smollm2-135m-instruct", "--dataset", "self-cognition#40", *NAMES, "--dtype", "fp32"),
    *("--max_steps", str(STEPS), "--logging_steps", "1", "--disable_tqdm", "--dataset_test_ratio", "0.1"),
    *("--eval_steps", "10", "--save_steps", "10", "--save_only_model", "false", "--add_output_dir_suffix", "false"),
    *("--max_length", "512", "--micro_batch_tokens", "300", "--learning_rate", "1e-3", "--report_to", "none"),
)
"""With 4 rows of about 220 tokens in a rank's step, each step has several passes."""
TUNERS = {"lora": ("--lora_dropout", "0"), "full": ("--sft_type", "full")}
WAYS = {
    "ddp": (),
    "fsdp": ("--fsdp", "full_shard auto_wrap"),
    "fsdp sequence": ("--fsdp", "full_shard auto_wrap", "--sequence_parallel_size", "2"),
    "fsdp grad_op offload": ("--fsdp", "shard_grad_op offload"),
    "sequence": ("--sequence_parallel_size", "2"),
    "zero2": ("--deepspeed", "default-zero2"),
    "zero3": ("--deepspeed", "default-zero3"),
    "zero3 offload": ("--deepspeed", "default-zero3-offload"),
}
RUNS = [
    *[("ddp", "lora"), ("sequence", "lora"), ("fsdp sequence", "full"), ("fsdp", "lora"), ("fsdp", "full")],
    *[("fsdp grad_op offload", "full"), ("zero2", "full"), ("zero3", "lora"), ("zero3", "full")],
    ("zero3 offload", "full"),
]
PARTS = {"ddp": (1.0, 1.0), "sequence": (1.0, 1.0), "fsdp": (0.5, 0.5), "zero2": (1.0, 0.5), "zero3": (0.5, 0.5)}
"""Shares of the model that a rank of two holds, and of what is trained that it updates."""

IN_CI = [("fsdp", "lora"), ("fsdp", "full"), ("zero2", "full"), ("zero3", "full")]
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")


def train(folder: Path, tiny: Path, ranks: int, *flags: str) -> None:
    plugin = folder.parent / f"{folder.name}-sizes/plugin.py"
    plugin.parent.mkdir(parents=True, exist_ok=True)
    plugin.write_text(WRITES_SIZES, encoding="utf-8")
    own = ("--model_id_or_path", str(tiny), "--output_dir", str(folder), "--custom_register_path", str(plugin))
    readers = 1 if "--sequence_parallel_size" in flags else ranks
    rows = ("--gradient_accumulation_steps", str(8 // readers))
    log = folder.with_suffix(".log")
    processes = forked_ranks(["sft", *RUN, *own, *rows, *flags], ranks, log)
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * ranks, log.read_text()[-3000:]


def logged(folder: Path, name: str) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def weights(folder: Path) -> Path:
    (found,) = (folder / f"checkpoint-{STEPS}").glob("*model.safetensors")
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def alone(tiny: Path, folder: Path) -> dict[str, Path]:
    """Tuner -> the run of one process."""
    for tuner, flags in TUNERS.items():
        train(folder / tuner, tiny, 1, *flags)
    return {tuner: folder / tuner for tuner in TUNERS}


def together(way: str, tuner: str, tiny: Path, folder: Path) -> Path:
    """Return the run of two processes; it is trained once."""
    made = folder / f"{way}-{tuner}".replace(" ", "-")
    if not made.exists():
        train(made, tiny, 2, *TUNERS[tuner], *WAYS[way])
    return made


def ways(*runs: tuple[str, str]) -> list[Any]:
    """Return the runs as parameters; some are tried by `nox -s thorough` alone."""
    kinds = {True: [needs_deepspeed], False: []}
    return [
        pytest.param(*one, marks=[*kinds["zero" in one[0]], *([] if one in IN_CI else [pytest.mark.thorough])])
        for one in runs
    ]


@pytest.mark.parametrize(("way", "tuner"), ways(*RUNS))
def test_they_train_what_one_process_trains(
    way: str, tuner: str, alone: dict[str, Path], tiny: Path, folder: Path
) -> None:
    run, expected = together(way, tuner, tiny, folder), alone[tuner]
    for name in ("loss", "grad_norm", "eval_loss"):
        found, same = logged(run, name), logged(expected, name)
        assert found.keys() == same.keys()
        assert max(abs(found[step] - same[step]) for step in same) < 1e-4, name
    assert logged(run, "loss")[STEPS] < logged(run, "loss")[1] - 0.01, "nothing was learned"
    found, same = load_file(weights(run)), load_file(weights(expected))
    assert found.keys() == same.keys()
    assert max(float((found[name] - value).norm() / value.norm()) for name, value in same.items()) < 1e-5


@pytest.mark.parametrize(("way", "tuner"), ways(*(one for one in RUNS if " " not in one[0])))
def test_each_holds_its_part(way: str, tuner: str, alone: dict[str, Path], tiny: Path, folder: Path) -> None:
    """accelerate was seen to train copies on a CPU where shards were asked for, without a word."""
    run, expected = together(way, tuner, tiny, folder), alone[tuner]
    whole = json.loads((expected.with_name(f"{expected.name}-sizes") / "0.json").read_text())
    for rank in (0, 1):
        found = json.loads((run.with_name(f"{run.name}-sizes") / f"{rank}.json").read_text())
        shares = (found["held"] / whole["held"], found["updated"] / whole["updated"])
        assert shares == pytest.approx(PARTS[way], abs=0.05), rank


ZERO3 = pytest.param("zero3", "full", marks=[needs_deepspeed, pytest.mark.thorough])


@pytest.mark.parametrize(("way", "tuner"), [*ways(("fsdp", "full"), ("fsdp", "lora")), ZERO3])
def test_a_resumed_run_ends_as_the_uninterrupted_run(way: str, tuner: str, tiny: Path, folder: Path) -> None:
    run, rest = together(way, tuner, tiny, folder), folder / f"resumed-{way}-{tuner}"
    shutil.copytree(run / "checkpoint-10", rest / "checkpoint-10")
    train(rest, tiny, 2, *TUNERS[tuner], *WAYS[way], "--resume_from_checkpoint", str(rest / "checkpoint-10"))
    assert weights(rest).read_bytes() == weights(run).read_bytes()


def test_a_run_of_shards_goes_on_in_one_process(tiny: Path, folder: Path) -> None:
    run, rest = together("fsdp", "full", tiny, folder), folder / "fsdp-in-one"
    shutil.copytree(run / "checkpoint-10", rest / "checkpoint-10")
    train(rest, tiny, 1, *TUNERS["full"], "--resume_from_checkpoint", str(rest / "checkpoint-10"))
    found, same = load_file(weights(rest)), load_file(weights(run))
    assert max(float((found[name] - value).norm() / value.norm()) for name, value in same.items()) < 1e-5


@needs_deepspeed
def test_weights_of_a_checkpoint_are_shared_anew(tiny: Path, folder: Path) -> None:
    """--resume_only_model under ZeRO-3: the first loss is that of the checkpoint's weights."""
    run, rest = together("zero3", "full", tiny, folder), folder / "zero3-weights"
    only = ("--resume_only_model", "true", "--resume_from_checkpoint", str(run / f"checkpoint-{STEPS}"))
    train(rest, tiny, 2, *TUNERS["full"], *WAYS["zero3"], *only)
    assert logged(rest, "loss")[1] < logged(run, "loss")[1] - 0.01


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--fsdp full_shart", "--fsdp 'full_shart' is unknown; did you mean full_shard"),
        ("--fsdp no_shard", "--fsdp no_shard shares nothing"),
        ("--fsdp full_shard,shard_grad_op", "full_shard and shard_grad_op exclude each other"),
        ("--fsdp full_shard --fsdp_num 3", "--fsdp_num 3 does not divide the 2 processes"),
        ('--fsdp full_shard --fsdp_config {"reshard":true}', "--fsdp_config: 'reshard' is unknown"),
        ("--fsdp full_shard --fsdp_config nowhere.json", "--fsdp_config nowhere.json: No such file"),
        ("--fsdp full_shard --optim adafactor", "--fsdp works with --optim adamw_torch"),
        ("--fsdp full_shard --sft_type lisa", "--fsdp: --sft_type lisa needs whole parameters"),
        ("--fsdp full_shard --predict_with_generate", "--predict_with_generate needs the whole model"),
        ("--deepspeed default-zero2 --fsdp full_shard", "--deepspeed and --fsdp exclude each other"),
        ("--deepspeed default-zero9", "known are default-zero2"),
        ('--deepspeed {"train_batch_size":4,"zero_optimization":{"stage":2}}', 'train_batch_size is 4; write "auto"'),
        ("--deepspeed default-zero3 --sft_type adalora", "--deepspeed: --sft_type adalora needs whole parameters"),
    ],
)
def test_what_cannot_be_shared_is_said_before_anything_is_loaded(
    words: str, problem: str, llmtune: Llmtune, tiny_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")  # as in the first of two processes
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = llmtune("sft", *tiny_flags, *words.split())
    assert (done.code, problem in done.err) == (2, True), done.err


@pytest.mark.parametrize("words", ["--fsdp full_shard", "--deepspeed default-zero2"])
def test_one_process_has_nobody_to_share_with(words: str, llmtune: Llmtune, tiny_flags: list[str]) -> None:
    done = llmtune("sft", *tiny_flags, *words.split())
    assert done.code == 2
    assert "among processes, and this run has one: NPROC_PER_NODE=2 starts two" in done.err
