"""What flags of different sections say against each other, found before anything is loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from importlib.metadata import version

from llmtune.config import environment
from llmtune.config.commands import CommandConfig
from llmtune.config.environment import world

_FULL_ONLY = ("freeze_parameters", "additional_trainable_parameters")


def problems_of(config: CommandConfig) -> Iterator[str]:
    """Yield one line for each contradiction."""
    yield from _tuning(config)
    yield from _quantization(config)
    yield from _data(config)
    yield from _evaluation(config)
    yield from _distributed(config)
    yield from _adapters(config)
    yield from _serving(config)
    yield from _upload(config)


def _tuning(config: CommandConfig) -> Iterator[str]:
    tuner = config.get("sft_type")
    full_only = [flag for flag in _FULL_ONLY if _asks_for(config.values.get(flag))]
    if tuner != "full":
        yield from (f"--{flag} works with --sft_type full only, found --sft_type {tuner}" for flag in full_only)
    if config.get("resume_only_model") and config.get("resume_from_checkpoint") is None:
        yield "--resume_only_model needs --resume_from_checkpoint"
    if config.get("tuner_backend") == "unsloth":
        yield (
            "--tuner_backend unsloth is not available yet: the package unsloth needs an NVIDIA GPU and transformers up "
            f"to 5.17 (here: {version('transformers')}), and replaces code of transformers while it is imported; "
            "use peft"
        )
    steps, warmup = config.get("max_steps", -1), config.get("warmup_steps", 0)
    if 0 < steps < warmup:
        yield f"--warmup_steps {warmup} is more than --max_steps {steps}"


def _asks_for(value: object) -> bool:
    """Whether a value asks for anything. Options of a tuner that the run does not use are not validated."""
    words = value if isinstance(value, list) else [value]
    return any(str(word) not in ("0", "0.", "0.0", "None", "") for word in words)


def _quantization(config: CommandConfig) -> Iterator[str]:
    bits = config.get("quantization_bit", 0)
    writes_quantized = "export" in type(config).model_fields
    if config.given("quant_method") and config.get("quant_method") and bits == 0 and not writes_quantized:
        yield "--quant_method has no effect without --quantization_bit"
    if config.get("rope_scaling") is not None and not config.given("max_length"):
        yield "--rope_scaling needs --max_length, the length to scale to"


def _data(config: CommandConfig) -> Iterator[str]:
    ratio = config.get("dataset_test_ratio", 0.0) if config.given("dataset_test_ratio") else 0.0
    if config.get("val_dataset") and ratio not in (0.0, 0.01):  # 0.01 is the default, which run files state too
        yield "--dataset_test_ratio has no effect with --val_dataset; give one of them"
    if config.get("train_dataset_mix_ratio") and not config.get("train_dataset_mix_ds"):
        yield "--train_dataset_mix_ratio needs --train_dataset_mix_ds"
    if config.get("eval_human") and (config.given("dataset") or config.given("val_dataset")):
        yield "--eval_human true chats; --dataset and --val_dataset are answered with --eval_human false"
    if config.get("use_hf") and config.get("hub") not in (None, "huggingface", "HF", "hf"):
        yield f"--use_hf true and --hub {config.get('hub')} name two hubs; give one of them"
    yield from _without_effect(config)
    yield from _loss(config)
    yield from _reading(config)
    if config.get("packing") and config.get("max_length", 0) < 0:
        yield "--packing needs --max_length, the length to pack to"


def _reading(config: CommandConfig) -> Iterator[str]:
    """How rows are read, encoded and put together."""
    streaming = config.get("streaming")
    lazy = config.given("lazy_tokenize") and config.get("lazy_tokenize")  # as a default it gives way
    if streaming and config.get("max_steps", -1) <= 0:
        yield "--streaming needs --max_steps: a stream has no length"
    for flag, value in (("lazy_tokenize", lazy), ("train_dataset_mix_ratio", config.get("train_dataset_mix_ratio"))):
        if streaming and value:
            yield f"--streaming and --{flag} exclude each other"
    if streaming and config.get("train_dataset_sample", -1) >= 0:
        yield "--train_dataset_sample needs to know all rows; with --streaming write --dataset NAME#500"
    if config.get("streaming_val_size") and not streaming:
        yield "--streaming_val_size needs --streaming"
    if lazy and config.get("packing"):
        yield "--packing needs to know how long rows are; with --lazy_tokenize nobody does"
    if lazy and config.get("truncation_strategy") == "split":
        yield "--truncation_strategy split makes several rows of one, which --lazy_tokenize cannot"
    weights = config.get("interleave_prob")
    if weights is not None:
        if len(weights) != len(config.get("dataset", [])):
            yield f"--interleave_prob has {len(weights)} values for {len(config.get('dataset', []))} datasets"
        if min(weights, default=0) <= 0:
            yield "--interleave_prob takes values above 0"


_TRAINING_DATA = {"train_dataset_sample": -1}
_UNSPLIT = {"dataset_test_ratio": 0.01, "max_dropped_ratio": 0.05}


def _loss(config: CommandConfig) -> Iterator[str]:
    given = config.given("loss_scale_config_path") and config.get("loss_scale_config_path") != "DEFAULT"
    if given and not config.get("use_loss_scale"):
        yield "--loss_scale_config_path has no effect without --use_loss_scale true"


def _without_effect(config: CommandConfig) -> Iterator[str]:
    """Flags that a command shares with training and has no use for; what a run file states as default is fine."""
    sections = type(config).model_fields
    useless = _TRAINING_DATA if "inference" in sections else _UNSPLIT if "inspection" in sections else {}
    for flag, default in useless.items():
        if config.given(flag) and config.get(flag) != default:
            yield f"--{flag} has no effect here: it belongs to training"


def _evaluation(config: CommandConfig) -> Iterator[str]:
    """Answers that are generated while training."""
    if not config.get("predict_with_generate"):
        if config.given("metric") and config.get("metric") != "nlg":
            yield "--metric has no effect without --predict_with_generate true"
        return
    if config.get("evaluation_strategy") == "no":
        yield "--predict_with_generate needs evaluations; --evaluation_strategy no has none"
    if config.get("streaming") and not config.get("streaming_val_size") and not config.get("val_dataset"):
        yield "--predict_with_generate needs rows: with --streaming give --val_dataset or --streaming_val_size"


def _distributed(config: CommandConfig) -> Iterator[str]:
    if config.given("deepspeed") and config.get("fsdp"):
        yield "--deepspeed and --fsdp exclude each other"
    if config.get("fsdp_config") is not None and not config.get("fsdp"):
        yield "--fsdp_config needs --fsdp"
    size = config.get("sequence_parallel_size", 1)
    processes = world()[1] if size > 1 else 1
    if math.gcd(size, processes) != size:
        yield f"--sequence_parallel_size {size} does not divide the {processes} processes of the run"
    elif size > 1 and not config.get("padding_free"):
        yield "--sequence_parallel_size needs --padding_free true"


def _adapters(config: CommandConfig) -> Iterator[str]:
    if config.get("lora_modules") and config.get("ckpt_dir") is None:
        yield "--lora_modules needs --ckpt_dir, the first adapter"
    if config.get("lora_modules") and config.get("merge_lora"):
        yield "--lora_modules and --merge_lora exclude each other: one adapter can be merged"


def _serving(config: CommandConfig) -> Iterator[str]:
    if (config.get("ssl_keyfile") is None) != (config.get("ssl_certfile") is None):
        yield "--ssl_keyfile and --ssl_certfile belong together"
    if config.get("eval_url") is not None and config.get("eval_is_chat_model") is None:
        yield "--eval_url needs --eval_is_chat_model true or false"


_RESUMABLE = ("checkpoint", "all_checkpoints")
_REPOSITORY = r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*"


def _upload(config: CommandConfig) -> Iterator[str]:
    """What goes to a hub."""
    if config.given("hub_token") and config.get("hub_token") and config.get("push_to_hub") is None:
        yield "--hub_token is for uploads; what is private is fetched with MODELSCOPE_API_TOKEN or HF_TOKEN"
    if not config.get("push_to_hub"):
        return
    if "export" in type(config).model_fields and config.get("hub_model_id") is None:
        yield "--push_to_hub needs --hub_model_id"
    repo = config.get("hub_model_id")
    if repo is not None and not re.fullmatch(_REPOSITORY, repo):
        yield f"--hub_model_id takes NAME or OWNER/NAME of letters, digits, '.', '_' and '-', found {repo!r}"
    if offline := "--offline" if config.get("offline") else environment.offline():
        yield f"--push_to_hub uploads, and {offline} opens no connection"
    if config.get("save_strategy") == "no":
        yield "--push_to_hub uploads checkpoints, and --save_strategy no writes none"
    strategy = config.get("push_hub_strategy")
    if strategy in _RESUMABLE and config.get("save_only_model"):
        yield f"--push_hub_strategy {strategy} uploads what resuming needs, and --save_only_model true leaves it out"
