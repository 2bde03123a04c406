"""The facts that hooks receive: what the catalogue, the flags and the run know about one thing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    import torch

    from llmtune.interfaces.layout import Layout


class ToolCall(TypedDict, total=False):
    """One call of a tool by the assistant, as OpenAI's API writes it."""

    type: Literal["function"]
    id: str
    function: dict[str, Any]
    """`name` (text) and `arguments` (a mapping, already parsed)."""


class Message(TypedDict, total=False):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    """The text; `<image>`, `<video>` and `<audio>` mark the places of the row's media, in order."""
    reasoning_content: str
    """What the assistant thought before `content`, without the marks around it."""
    loss: bool
    """Whether this assistant turn is trained on; absent means yes."""
    tool_calls: list[ToolCall]
    """Tools that this assistant turn calls; the answers follow as `tool` turns."""
    tool_call_id: str
    """The `id` of the call that this `tool` turn answers, where the row says it; `name` likewise its function."""
    name: str


class Row(TypedDict, total=False):
    """The one row type between preprocessors and templates; plain JSON values throughout."""

    messages: list[Message]
    """Turns from user to assistant; one assistant turn alone is plain text to pre-train on."""
    system: str
    tools: list[dict[str, Any]]
    """Functions that the assistant may call: OpenAI's `{"type": "function", "function": {...}}`."""
    images: list[str]
    """Paths, URLs or `data:` URIs, in the order of the `<image>` marks; `videos` and `audios` likewise."""
    videos: list[str]
    audios: list[str]
    rejected: list[Message]
    """The conversation that was preferred less: begins as `messages` does and ends with another answer."""
    label: bool
    """Whether the answer is wanted (KTO)."""
    source: str
    """Where the row came from ("data.jsonl:12"), for reports and errors."""


class Encoded(TypedDict, total=False):
    """A row as a template renders it. All lists have the same length T."""

    input_ids: list[int]
    labels: list[int]
    """Token ids where the model is trained, -100 elsewhere."""
    loss_weights: list[float]
    """Weight of each target token; absent when all are 1."""
    problem: tuple[str, str]
    """(reason, source) of a row that cannot be trained on and was found out late (--lazy_tokenize)."""
    lengths: list[int]
    """Tokens of each sample of a pack, in order, T together; absent for a single sample."""
    sources: list[str]
    """Where the row came from, or each of a pack; absent where `TrainingJob.sources` knows it."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One checkpoint, already resolved to a local folder."""

    name: str
    facts: Mapping[str, Any]
    """The row of the catalogue; empty for a model that no plugin registered."""
    folder: Path | None
    """Local snapshot of the repository; None for a local plugin that loads by itself."""
    source: str = ""
    """Where the snapshot came from: "modelscope:org/name", "pypi:dist==1.0" or a path."""


@dataclass(frozen=True, kw_only=True)
class TemplateSpec:
    """One chat format. Parts are lists of text, token ids or `["eos_token_id"]`-like attribute names."""

    name: str
    prompt: list[Any]
    prefix: list[Any] = field(default_factory=list)
    system_prefix: list[Any] | None = None
    chat_sep: list[Any] | None = None
    suffix: list[Any] = field(default_factory=lambda: [["eos_token_id"]])
    default_system: str | None = None
    system_in: Literal["prefix", "first_user", "last_user"] = "prefix"
    """Where a system prompt stands: in `system_prefix`, or before a question, with an empty line between."""
    auto_add_bos: bool = False
    """Whether what the tokenizer puts before every text (BOS) comes first, if `prefix` does not begin with it."""
    stop_words: list[str] = field(default_factory=list)
    tools_prompt: ToolsPromptSpec | None = None
    """How tools are described; None: not at all."""
    thinking: Literal["keep", "strip_history"] = "keep"
    """Whether thoughts of turns before the last question are rendered."""
    thinking_form: list[Any] = field(default_factory=lambda: ["<think>\n{{THINKING}}\n</think>\n\n"])
    """Thoughts before an answer."""
    thinking_prefix: list[Any] = field(default_factory=list)
    """The beginning of `thinking_form` that stands in the prompt already."""
    thinking_empty: list[Any] = field(default_factory=list)
    """What the last answer begins with where it has no thoughts."""
    thinking_stripped: list[Any] = field(default_factory=list)
    """What an earlier answer begins with where its thoughts are not shown."""

    @classmethod
    def from_facts(cls, name: str, facts: Mapping[str, Any]) -> TemplateSpec:
        """Build it from a row of the catalogue; its tools prompt, another row, is added later."""
        known = {one.name for one in fields(cls)} - {"name", "tools_prompt"}
        return cls(name=name, **{key: value for key, value in facts.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class ToolsPromptSpec:
    """How tools are told, called and answered. The snippets are jinja; they may use the filter `tojson`."""

    name: str
    describe: str
    """`tools` (a list of `{"type": "function", "function": {...}}`) with the `text` of the prompt they go with."""
    call: str
    """What follows the `content` of a turn with `calls` (a list of `{"name": ..., "arguments": {...}}`)."""
    results: str
    """`results`: the texts that the tools gave; `calls`: what each of them answers (`name`, `arguments` and `index`,
    the place among the calls of the answer), none where that is not known."""
    tools_in: Literal["system", "first_user", "last_user", "before_last_user"] = "system"
    """What they are told with: the system prompt, a question, or nothing, right before the last question."""
    results_in: Literal["prompt", "turn", "answer"] = "prompt"
    """Results stand where a question stands; make up the turn up to where the model answers; or stand inside
    of the answer, which goes on behind them."""
    pattern: str = r"(?!)"
    """Regular expression of one call, with groups `json`, or `name` and `arguments` or `pairs`."""
    pair: str = ""
    """Regular expression of one of the `pairs`, with groups `key` and `value`."""
    stop_words: list[str] = field(default_factory=list)
    """Texts that end a call."""

    @classmethod
    def from_facts(cls, name: str, facts: Mapping[str, Any]) -> ToolsPromptSpec:
        """Build it from a row of the catalogue."""
        known = {one.name for one in fields(cls)} - {"name"}
        return cls(name=name, **{key: value for key, value in facts.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One selected dataset: a registered name, a repository or a file."""

    name: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None
    """File or folder to read; None when the owner's hook brings the rows itself."""
    sample: int | None = None
    """How many rows to draw (`name#500`)."""
    subsets: tuple[str, ...] = ()
    """Subsets that the user asks for (`name:first/second`); empty means those of the manifest."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column -> what it is called from here on; "-" leaves it out. The manifest's, then the user's."""


@dataclass(frozen=True, kw_only=True)
class SplitRecords:
    """The records of a dataset that brings its own validation part."""

    train: Iterable[Mapping[str, Any]]
    validation: Iterable[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How to load a model."""

    dtype: str = "AUTO"
    """bf16, fp16 or fp32; AUTO only where no weights are loaded."""
    weights: bool = True
    """False loads the tokenizer alone."""
    trust_remote_code: bool = False
    pickled_weights: bool = False
    """Read `*.bin` where there are no safetensors, with an unpickler that makes tensors alone."""
    use_flash_attn: bool | None = None
    rope_scaling: Literal["linear", "dynamic", "yarn"] | None = None
    max_length: int | None = None
    """Tokens that `rope_scaling` lets the model take."""
    device_map: Mapping[str, int | str] | None = None
    """Module -> GPU number, "cpu" or "disk"; None: all on this process's device."""
    max_memory: Sequence[str] = ()
    """Memory to use on each device ("10GB"): the model is spread over them."""
    shared: bool = False
    """Whether the processes of the run are going to share the model: none puts all of it on its own GPU."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """More keywords for `from_pretrained`, from a quantizer."""

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.dtype]


@dataclass(kw_only=True)
class LoadedModel:
    """What `llmtune_load_model` returns. `model` is None when only the tokenizer was asked for."""

    model: Any
    tokenizer: Any
    processor: Any = None
    layouts: tuple[Layout, ...] = ()
    """Those that the family was published in, where they are not native."""
    skeleton: Callable[[torch.dtype], Any] | None = None
    """Builds the model's layers without weights, on the device "meta"; gives None where only its own code knows them.
    Itself None for what no folder holds."""
    adapters: tuple[str, ...] = ()
    """Names of more adapters than the checkpoint's own (--lora_modules)."""
    choose: Callable[[str | None], None] | None = None
    """Lets one of several adapters answer; None is the checkpoint's own."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run uses: every name resolved once, and the plugins to activate, in order.

    Written into run.json. Worker ranks read it and activate the same list; they never rescan.
    """

    command: str
    choices: dict[str, str] = field(default_factory=dict)
    """kind -> qualified name ("lora::lora"); datasets are listed under "dataset" with commas."""
    plugins: tuple[str, ...] = ()
    """Plugins to activate, core first, then by name."""
    versions: dict[str, str] = field(default_factory=dict)
    """Distribution -> version of every plugin in the plan."""
    local: tuple[str, ...] = ()
    """Files of --custom_register_path."""
    target_modules: tuple[str, ...] = ()
    """Layers that the model's family adapts by default."""
    published_modules: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Name that a layer had in the code that a model was published with -> its native names."""
    quantization_bit: int = 0
    resolved: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Flag -> {"value", "rule"} for every None or AUTO that a rule decided."""

    def native_modules(self, names: Iterable[str]) -> list[str]:
        """Return names of layers with those of published code (`c_attn`) replaced by the native ones."""
        return [native for name in names for native in self.published_modules.get(name, [name])]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The run that a hook is called in."""

    plan: RunPlan
    folder: Path | None = None
    """Run folder; None for commands that have none."""
    rank: int = 0
    world_size: int = 1
    say: Callable[[str], None] = print
    """Prints one line for the user (on rank 0 only)."""
    options: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    """(kind, name) -> validated options of the tuner, quantizer, extensions ... of the run."""
    seed: int = 42
    """--seed, of everything random."""
    steps: int | None = None
    """Optimizer steps of a training run, once its data is read."""
