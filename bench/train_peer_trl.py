"""TRL's SFTTrainer as a peer of bench/train_cpu.py, on rows of a prompt and the completion that is trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
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
    return SFTConfig(
        output_dir=str(given.folder),
        use_cpu=True,
        model_init_kwargs={"dtype": "bfloat16"},
        per_device_train_batch_size=given.batch_size,
        gradient_accumulation_steps=given.gradient_accumulation_steps,
        learning_rate=given.learning_rate,
        num_train_epochs=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--alpha", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--gradient_accumulation_steps", type=int, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
