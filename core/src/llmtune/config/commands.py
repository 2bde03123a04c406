"""The configuration of each command: sections, composed.

A field is called like the module of its section (`model` is `config/model.py`, class `ModelSection`);
`field_names.py` relies on it.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmtune.config.data import DataSection
from llmtune.config.evaluation import EvaluationSection
from llmtune.config.generation import GenerationSection
from llmtune.config.hub import HubSection
from llmtune.config.inference import InferenceSection
from llmtune.config.inspection import InspectionSection
from llmtune.config.model import ModelSection
from llmtune.config.plugins import PluginsSection
from llmtune.config.quantization import QuantizationSection
from llmtune.config.section import Section
from llmtune.config.template import TemplateSection
from llmtune.config.training import TrainingSection
from llmtune.config.tuner import TunerSection


class CommandConfig(BaseModel):
    """Sections every command has, and the options of the plugins that the run uses."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    plugins: PluginsSection = Field(default_factory=PluginsSection)
    model: ModelSection = Field(default_factory=ModelSection)
    hub: HubSection = Field(default_factory=HubSection)
    data: DataSection = Field(default_factory=DataSection)
    template: TemplateSection = Field(default_factory=TemplateSection)

    _options: dict[tuple[str, str], Section] = {}
    _given: frozenset[str] = frozenset()

    def options(self, kind: str, name: str) -> Section | None:
        """Return the validated options of one plugin's entry, None when it has none."""
        return self._options.get((kind, name))

    def given(self, flag: str) -> bool:
        """Whether the user set `flag`, on the command line or in the run file."""
        return flag in self._given

    def flat(self) -> dict[str, Any]:
        """Return every flag with its value; the content of sft_args.json."""
        sections = [getattr(self, name) for name in type(self).model_fields]
        return {
            key: value
            for part in (*sections, *self._options.values())
            for key, value in part.model_dump(mode="json").items()
        }


class SftConfig(CommandConfig):
    """Fine-tuning."""

    tuner: TunerSection = Field(default_factory=TunerSection)
    quantization: QuantizationSection = Field(default_factory=QuantizationSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)


class InferConfig(CommandConfig):
    """Chatting and answering datasets."""

    template: TemplateSection = Field(default_factory=lambda: TemplateSection(max_length=-1))
    quantization: QuantizationSection = Field(default_factory=QuantizationSection)
    generation: GenerationSection = Field(default_factory=GenerationSection)
    inference: InferenceSection = Field(default_factory=InferenceSection)


class InspectConfig(CommandConfig):
    """Looking at encoded rows."""

    inspection: InspectionSection = Field(default_factory=InspectionSection)


COMMANDS: dict[str, type[CommandConfig]] = {"sft": SftConfig, "infer": InferConfig, "inspect": InspectConfig}
