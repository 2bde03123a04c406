"""Start-up of the small commands with 100 generated plugins, as ratios to `python -c pass`.

Each round times every command once, one after the other, so that a slow moment of the machine hits
all of them; ratios are taken round by round. Budgets: --version 4, --help 12, models and plugins 16.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hundred_plugins import write_plugins

LLMTUNE = str(Path(sys.executable).with_name("llmtune"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "llmtune --version": [LLMTUNE, "--version"],
    "llmtune --help": [LLMTUNE, "--help"],
    "llmtune models": [LLMTUNE, "models"],
    "llmtune plugins": [LLMTUNE, "plugins"],
    "llmtune sft --learnig_rate 1e-4": [LLMTUNE, "sft", "--learnig_rate", "1e-4"],
    "llmtune sft --help": [LLMTUNE, "sft", "--help"],
}
BUDGETS = {"llmtune --version": 4, "llmtune --help": 12, "llmtune models": 16, "llmtune plugins": 16}


def main() -> int:
    """Print the table; exit 1 when a median ratio is over its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as site:
        write_plugins(Path(site))
        environment = {**os.environ, "PYTHONPATH": site}
        measure(environment)  # warms the file cache and writes the byte code
        seconds = [measure(environment) for _ in range(rounds)]
    return report(seconds)


def measure(environment: dict[str, str]) -> dict[str, float]:
    """Time every command once."""
    return {name: _seconds(command, environment) for name, command in COMMANDS.items()}


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, check=False)
    return time.perf_counter() - started


def report(seconds: list[dict[str, float]]) -> int:
    """Print medians of times and of ratios."""
    over = 0
    print(f"{'command':34} {'median ms':>9} {'ratio':>6} {'budget':>6}")
    for name in COMMANDS:
        times = [one[name] for one in seconds]
        ratio = statistics.median(one[name] / one["python -c pass"] for one in seconds)
        budget = BUDGETS.get(name)
        over += budget is not None and ratio > budget
        print(f"{name:34} {statistics.median(times) * 1000:9.0f} {ratio:6.1f} {budget or '':>6}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
