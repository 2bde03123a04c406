"""TRL's SFTTrainer as a peer of bench/train_cpu.py, on rows of a prompt and the completion that is trained on."""

from __future__ import annotations

import argparse
import json

from datasets import Dataset
from peft import LoraConfig
from train_peer_options import equal_arguments, parser
from trl import SFTConfig, SFTTrainer


def main() -> None:
    """Train, and print what bench/train_cpu.py reads."""
    given = _options()
    chats = [json.loads(line)["messages"] for line in given.rows.read_bytes().splitlines()]
    trainer = SFTTrainer(
        model=str(given.model),
        args=sft_config(given),
        train_dataset=Dataset.from_list([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]),
        peft_config=LoraConfig(
            r=given.rank, lora_alpha=given.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    seconds = trainer.train().metrics["train_runtime"]
    lines = [line for line in trainer.state.log_history if "loss" in line]
    losses = [line["loss"] for line in lines]
    print(json.dumps({"seconds": seconds, "tokens": round(lines[-1]["num_tokens"]), "losses": losses}))


def sft_config(given: argparse.Namespace) -> SFTConfig:
    settings = {"model_init_kwargs": {"dtype": "bfloat16"}, "per_device_train_batch_size": given.batch_size}
    return SFTConfig(**equal_arguments(given), **settings)


def _options() -> argparse.Namespace:
    options = parser()
    options.add_argument("--batch_size", type=int, required=True)
    return options.parse_args()


if __name__ == "__main__":
    main()
