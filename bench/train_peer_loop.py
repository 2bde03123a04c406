"""A plain Trainer + peft loop as a peer of bench/train_cpu.py: one row a batch, rows in random order, no padding.

With `--logits targets` the output head and the loss see only the positions whose next token is trained on.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from train_peer_options import equal_arguments, parser
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)


class TargetLogits(Trainer):
    """Computes logits only where there is a target."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        llama = model.get_base_model()
        hidden = llama.model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        targets = inputs["labels"][:, 1:]
        kept = targets != -100
        logits = llama.lm_head(hidden[:, :-1][kept]).float()
        return torch.nn.functional.cross_entropy(logits, targets[kept], reduction="sum") / num_items_in_batch


def main() -> None:
    """Train, and print what bench/train_cpu.py reads."""
    given = _options()
    tokenizer = AutoTokenizer.from_pretrained(given.model)
    chats = [json.loads(line)["messages"] for line in given.rows.read_bytes().splitlines()]
    rows = [encode(chat, tokenizer) for chat in chats]
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16)
    lora = LoraConfig(r=given.rank, lora_alpha=given.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = (TargetLogits if given.logits == "targets" else Trainer)(
        model=get_peft_model(model, lora),
        args=training_arguments(given),
        train_dataset=rows,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    seconds = trainer.train().metrics["train_runtime"]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    print(json.dumps({"seconds": seconds, "tokens": sum(len(row["input_ids"]) for row in rows), "losses": losses}))


def encode(chat: list[dict[str, str]], tokenizer: Any) -> dict[str, list[int]]:
    """Return the ids of the chat; what comes before the answer is masked."""
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    prompt = tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    masked = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": [-100] * masked + ids[masked:]}


def training_arguments(given: argparse.Namespace) -> TrainingArguments:
    return TrainingArguments(**equal_arguments(given), per_device_train_batch_size=1)


def _options() -> argparse.Namespace:
    options = parser()
    options.add_argument("--logits", choices=["all", "targets"], required=True)
    return options.parse_args()


if __name__ == "__main__":
    main()
