"""The configuration of each command: sections, composed.

A field is called like the module of its section (`model` is `config/model.py`, class `ModelSection`),
and its defaults are literals: `source.py` reads both without importing anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from llmtune.config.address import AddressSection
from llmtune.config.benchmarks import BenchmarksSection
from llmtune.config.data import DataSection
from llmtune.config.distributed import DistributedSection
from llmtune.config.evaluation import EvaluationSection
from llmtune.config.export import ExportSection
from llmtune.config.flags import Given
from llmtune.config.generation import GenerationSection
from llmtune.config.gradio import GradioSection
from llmtune.config.hub import HubSection
from llmtune.config.inference import InferenceSection
from llmtune.config.inspection import InspectionSection
from llmtune.config.interface import InterfaceSection
from llmtune.config.invocation import InvocationSection
from llmtune.config.lmdeploy import LmdeploySection
from llmtune.config.loss import LossSection
from llmtune.config.merging import MergingSection
from llmtune.config.model import ModelSection
from llmtune.config.optimizer import OptimizerSection
from llmtune.config.plugins import PluginsSection
from llmtune.config.preprocessing import PreprocessingSection
from llmtune.config.quantization import QuantizationSection
from llmtune.config.rehearsal import RehearsalSection
from llmtune.config.rlhf import RlhfSection
from llmtune.config.saving import SavingSection
from llmtune.config.section import Section, extra
from llmtune.config.server import ServerSection
from llmtune.config.template import TemplateSection
from llmtune.config.tracking import TrackingSection
from llmtune.config.training import TrainingSection
from llmtune.config.tuner import TunerSection
from llmtune.config.upload import UploadSection
from llmtune.config.vllm import VllmSection
from llmtune.config.weights import WeightsSection


def section(kind: type[Section], **defaults: Any) -> Any:
    """A section of a command; `defaults` are those that differ from the section's own."""
    return Field(default_factory=lambda: kind(**defaults))


class CommandConfig(BaseModel):
    """Sections every command has, and the options of the plugins that the run uses."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    option_defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of plugins' options that differ in this command."""

    invocation: InvocationSection = section(InvocationSection)
    plugins: PluginsSection = section(PluginsSection)

    _values: Given = Given()
    _from_user: frozenset[str] = frozenset()
    _options: dict[tuple[str, str], Section] = {}
    _problems: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What flags say against each other, and what is not available yet; one line each."""
        return self._problems

    @property
    def values(self) -> Given:
        """Flag -> what was given for it, flags of plugins included."""
        return self._values

    def given(self, flag: str) -> bool:
        """Whether the user set `flag`, on the command line or in the run file."""
        return flag in self._from_user

    def options(self, kind: str, name: str) -> Section | None:
        """Return the validated options of one plugin's entry, None when it has none."""
        return self._options.get((kind, name))

    def all_options(self) -> dict[tuple[str, str], Section]:
        """Return (kind, name) -> options of every plugin's entry that the run uses."""
        return dict(self._options)

    def sections(self) -> list[tuple[str, Section]]:
        """Return (attribute, section) pairs, in the order of the help."""
        return [(name, getattr(self, name)) for name in type(self).model_fields]

    def section_of(self, flag: str) -> str:
        """Return the attribute that holds `flag`; raises `KeyError` for a flag of a plugin."""
        for name, part in self.sections():
            if flag in type(part).model_fields:
                return name
        raise KeyError(flag)

    def get(self, flag: str, default: Any = None) -> Any:
        """Return the value of a flag, `default` where this command has none such."""
        parts = [*(part for _, part in self.sections()), *self._options.values()]
        return next((getattr(part, flag) for part in parts if flag in type(part).model_fields), default)

    def flat(self) -> dict[str, Any]:
        """Return every flag with its value, without secrets; the content of sft_args.json."""
        parts = [part for name, part in self.sections() if name != "invocation"]
        return {
            flag: value
            for part in (*parts, *self._options.values())
            for flag, value in part.model_dump(mode="json").items()
            if not extra(type(part), flag).get("x-secret")
        }


class ModelConfig(CommandConfig):
    """What every command with a model and data has."""

    model: ModelSection = section(ModelSection)
    hub: HubSection = section(HubSection)
    data: DataSection = section(DataSection)
    template: TemplateSection = section(TemplateSection)


class SftConfig(ModelConfig):
    """Fine-tuning."""

    rehearsal: RehearsalSection = section(RehearsalSection)
    preprocessing: PreprocessingSection = section(PreprocessingSection)
    loss: LossSection = section(LossSection)
    tuner: TunerSection = section(TunerSection)
    quantization: QuantizationSection = section(QuantizationSection)
    training: TrainingSection = section(TrainingSection)
    optimizer: OptimizerSection = section(OptimizerSection)
    evaluation: EvaluationSection = section(EvaluationSection)
    generation: GenerationSection = section(GenerationSection)
    saving: SavingSection = section(SavingSection)
    weights: WeightsSection = section(WeightsSection)
    tracking: TrackingSection = section(TrackingSection)
    distributed: DistributedSection = section(DistributedSection)
    upload: UploadSection = section(UploadSection)


class PtConfig(SftConfig):
    """Pre-training."""

    option_defaults: ClassVar[Mapping[str, Any]] = {"target_modules": ["ALL"]}

    tuner: TunerSection = section(TunerSection, sft_type="full")
    preprocessing: PreprocessingSection = section(PreprocessingSection, lazy_tokenize=True)
    evaluation: EvaluationSection = section(EvaluationSection, eval_steps=500)


class RlhfConfig(SftConfig):
    """Learning from preferences."""

    rlhf: RlhfSection = section(RlhfSection)


class InferConfig(ModelConfig):
    """Chatting and answering datasets."""

    template: TemplateSection = section(TemplateSection, max_length=-1)
    inference: InferenceSection = section(InferenceSection)
    generation: GenerationSection = section(GenerationSection)
    quantization: QuantizationSection = section(QuantizationSection)
    merging: MergingSection = section(MergingSection)
    weights: WeightsSection = section(WeightsSection)
    vllm: VllmSection = section(VllmSection)
    lmdeploy: LmdeploySection = section(LmdeploySection)


class MergeLoraConfig(InferConfig):
    """Merging an adapter."""


class ExportConfig(InferConfig):
    """Writing a model in another form."""

    quantization: QuantizationSection = section(QuantizationSection, quant_method="awq")
    export: ExportSection = section(ExportSection)
    upload: UploadSection = section(UploadSection)


class EvalConfig(InferConfig):
    """Benchmarks."""

    generation: GenerationSection = section(GenerationSection, do_sample=False, temperature=0.0)
    benchmarks: BenchmarksSection = section(BenchmarksSection)


class AppUiConfig(InferConfig):
    """A chat page."""

    address: AddressSection = section(AddressSection, port=7860)
    gradio: GradioSection = section(GradioSection)


class DeployConfig(InferConfig):
    """A server."""

    inference: InferenceSection = section(InferenceSection, verbose=True)
    address: AddressSection = section(AddressSection, port=8000)
    server: ServerSection = section(ServerSection)


class WebUiConfig(CommandConfig):
    """Everything from a browser."""

    address: AddressSection = section(AddressSection)
    interface: InterfaceSection = section(InterfaceSection)
    gradio: GradioSection = section(GradioSection)


class InspectConfig(ModelConfig):
    """Looking at encoded rows."""

    loss: LossSection = section(LossSection)
    inspection: InspectionSection = section(InspectionSection)


COMMANDS: dict[str, type[CommandConfig]] = {
    "sft": SftConfig,
    "pt": PtConfig,
    "rlhf": RlhfConfig,
    "infer": InferConfig,
    "merge-lora": MergeLoraConfig,
    "export": ExportConfig,
    "eval": EvalConfig,
    "deploy": DeployConfig,
    "app-ui": AppUiConfig,
    "web-ui": WebUiConfig,
    "inspect": InspectConfig,
}
