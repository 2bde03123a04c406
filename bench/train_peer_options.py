"""What the peers of bench/train_cpu.py that are scripts are told, and what is equal for them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Return a parser of what each of them needs to know."""
    made = argparse.ArgumentParser()
    for name, kind in (("model", Path), ("rows", Path), ("folder", Path), ("learning_rate", float)):
        made.add_argument(f"--{name}", type=kind, required=True)
    for name in ("rank", "alpha", "gradient_accumulation_steps"):
        made.add_argument(f"--{name}", type=int, required=True)
    return made


def equal_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """Return arguments of transformers' Trainer that all have."""
    return {
        "output_dir": str(given.folder),
        "use_cpu": True,
        "gradient_accumulation_steps": given.gradient_accumulation_steps,
        "learning_rate": given.learning_rate,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
