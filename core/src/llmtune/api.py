"""Everything a plugin may import from llmtune."""

from llmtune.config.distributed import DistributedSection
from llmtune.config.environment import cache_folder, local_world_size, world
from llmtune.config.optimizer import OptimizerSection
from llmtune.config.section import Section, named, pending
from llmtune.config.target_layers import TargetLayers
from llmtune.data.media import add_media
from llmtune.data.micro_batches import MicroBatches, Padded, PaddingFree, deal
from llmtune.data.packing import joined
from llmtune.data.preprocess import Auto, Fill, ask, conversation
from llmtune.data.stream import Stream
from llmtune.data.turns import parsed, say, to_messages
from llmtune.errors import (
    CheckpointError,
    DataError,
    HubUnreachable,
    Interrupted,
    LlmtuneError,
    NotInCache,
    OutOfMemory,
    OutputError,
    PluginFailed,
    TrainingDiverged,
    UnknownName,
    UsageError,
    did_you_mean,
)
from llmtune.hookspecs import hookimpl
from llmtune.interfaces.engine import Chunk, Engine, GenerationRequest
from llmtune.interfaces.hub import Hub
from llmtune.interfaces.layout import Layout
from llmtune.interfaces.metric import Metric
from llmtune.interfaces.preprocessor import Preprocessor
from llmtune.interfaces.quantizer import Quantizer
from llmtune.interfaces.template import Template
from llmtune.interfaces.trainer import Callback, RunResult, Trainer, TrainingJob
from llmtune.interfaces.tuner import Tuner, parameter_size
from llmtune.model.from_sentencepiece import sentencepiece_tokenizer
from llmtune.model.from_tiktoken import tiktoken_tokenizer
from llmtune.model.layout import (
    join_tensors,
    llama_facts,
    rename_tensors,
    split_tensor,
    stack_experts,
    with_tensors,
)
from llmtune.model.load import load_pretrained
from llmtune.model.target_layers import decoder_layers, layers_named
from llmtune.paths import put_in_place
from llmtune.specs import (
    DatasetSpec,
    Encoded,
    LoadedModel,
    LoadOptions,
    Message,
    ModelSpec,
    Row,
    RunContext,
    SplitRecords,
    TemplateSpec,
    ToolCall,
)
from llmtune.template.chat_format import ChatFormat
from llmtune.template.pieces import Piece
from llmtune.train import checkpoint, ranks
from llmtune.train.adapter_tensors import fill_tensors
from llmtune.train.interrupt import StopRequest, stop_requests
from llmtune.train.peft_tuner import PeftTuner
from llmtune.train.whole_model_tuner import WholeModelTuner

__all__ = [
    "Auto",
    "Callback",
    "ChatFormat",
    "CheckpointError",
    "Chunk",
    "DataError",
    "DatasetSpec",
    "DistributedSection",
    "Encoded",
    "Engine",
    "Fill",
    "GenerationRequest",
    "Hub",
    "HubUnreachable",
    "Interrupted",
    "Layout",
    "LlmtuneError",
    "LoadOptions",
    "LoadedModel",
    "Message",
    "Metric",
    "MicroBatches",
    "ModelSpec",
    "NotInCache",
    "OptimizerSection",
    "OutOfMemory",
    "OutputError",
    "Padded",
    "PaddingFree",
    "PeftTuner",
    "Piece",
    "PluginFailed",
    "Preprocessor",
    "Quantizer",
    "Row",
    "RunContext",
    "RunResult",
    "Section",
    "SplitRecords",
    "StopRequest",
    "Stream",
    "TargetLayers",
    "Template",
    "TemplateSpec",
    "ToolCall",
    "Trainer",
    "TrainingDiverged",
    "TrainingJob",
    "Tuner",
    "UnknownName",
    "UsageError",
    "WholeModelTuner",
    "add_media",
    "ask",
    "cache_folder",
    "checkpoint",
    "conversation",
    "deal",
    "decoder_layers",
    "did_you_mean",
    "fill_tensors",
    "hookimpl",
    "join_tensors",
    "joined",
    "layers_named",
    "llama_facts",
    "load_pretrained",
    "local_world_size",
    "named",
    "parameter_size",
    "parsed",
    "pending",
    "put_in_place",
    "ranks",
    "rename_tensors",
    "say",
    "sentencepiece_tokenizer",
    "split_tensor",
    "stack_experts",
    "stop_requests",
    "tiktoken_tokenizer",
    "to_messages",
    "with_tensors",
    "world",
]
