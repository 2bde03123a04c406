"""llmtune: fine-tune, serve, evaluate and export language models through plugins."""

from __future__ import annotations

TYPE_CHECKING = False  # read by type checkers; importing typing would be a tenth of `llmtune --version`
if TYPE_CHECKING:
    from typing import Any

    from llmtune.plugins.registration import (
        Template,
        register_command,
        register_dataset,
        register_model,
        register_template,
        register_tuner,
    )
    from llmtune.python.arguments import (
        AppUIArguments,
        DeployArguments,
        EvalArguments,
        ExportArguments,
        InferArguments,
        MergeLoraArguments,
        PtArguments,
        RLHFArguments,
        SftArguments,
        WebuiArguments,
    )
    from llmtune.python.datasets import get_dataset, get_dataset_from_repo
    from llmtune.python.generation import inference, inference_stream
    from llmtune.python.mains import (
        app_ui_main,
        deploy_main,
        eval_main,
        export_main,
        infer_main,
        merge_lora_main,
        pt_main,
        rlhf_main,
        sft_main,
        web_ui_main,
    )
    from llmtune.python.models import get_model_tokenizer, get_model_tokenizer_from_repo
    from llmtune.python.names import DatasetName, ModelType, TemplateType
    from llmtune.python.preprocessors import AlpacaPreprocessor, ConversationsPreprocessor
    from llmtune.python.target_modules import LoRATM
    from llmtune.python.templates import get_template

# Kept as a literal: `llmtune --version` must not pay for importlib.metadata (70 ms).
__version__ = "0.1.0"

__all__ = [
    "AlpacaPreprocessor",
    "AppUIArguments",
    "ConversationsPreprocessor",
    "DatasetName",
    "DeployArguments",
    "EvalArguments",
    "ExportArguments",
    "InferArguments",
    "LoRATM",
    "MergeLoraArguments",
    "ModelType",
    "PtArguments",
    "RLHFArguments",
    "SftArguments",
    "Template",
    "TemplateType",
    "WebuiArguments",
    "app_ui_main",
    "deploy_main",
    "eval_main",
    "export_main",
    "get_dataset",
    "get_dataset_from_repo",
    "get_model_tokenizer",
    "get_model_tokenizer_from_repo",
    "get_template",
    "infer_main",
    "inference",
    "inference_stream",
    "merge_lora_main",
    "pt_main",
    "register_command",
    "register_dataset",
    "register_model",
    "register_template",
    "register_tuner",
    "rlhf_main",
    "sft_main",
    "web_ui_main",
]

_MODULES = {
    "llmtune.plugins.registration": (
        "Template register_command register_dataset register_model register_template register_tuner"
    ),
    "llmtune.python.arguments": (
        "AppUIArguments DeployArguments EvalArguments ExportArguments InferArguments "
        "MergeLoraArguments PtArguments RLHFArguments SftArguments WebuiArguments"
    ),
    "llmtune.python.datasets": "get_dataset get_dataset_from_repo",
    "llmtune.python.generation": "inference inference_stream",
    "llmtune.python.mains": (
        "app_ui_main deploy_main eval_main export_main infer_main merge_lora_main pt_main rlhf_main "
        "sft_main web_ui_main"
    ),
    "llmtune.python.models": "get_model_tokenizer get_model_tokenizer_from_repo",
    "llmtune.python.names": "DatasetName ModelType TemplateType",
    "llmtune.python.preprocessors": "AlpacaPreprocessor ConversationsPreprocessor",
    "llmtune.python.target_modules": "LoRATM",
    "llmtune.python.templates": "get_template",
}
"""Module -> the names that are imported from it on first use: `import llmtune` itself stays cheap."""


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names.split()), None)
    if module is None:
        raise AttributeError(f"module 'llmtune' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
