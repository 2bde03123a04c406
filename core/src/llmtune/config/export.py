"""Flags about writing a model in another form."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section, pending


class ExportSection(Section):
    """Export"""

    to_native: bool = Field(
        False, description="Write a model that was published with its own code as plain transformers reads it."
    )
    to_original: bool = Field(False, description="Write it back in the layout in which its family was published.")
    export_output_dir: str | None = Field(
        None, description="Where these two write. None: <ckpt_dir or model_type>-native or -original."
    )
    to_peft_format: bool = Field(False, description="Convert an adapter of SWIFT's own format to <ckpt_dir>-peft.")
    quant_bits: int = pending(
        0, ge=0, le=8, description="Bits to quantize to: 4 for awq; 2, 3, 4 or 8 for gptq; 0: none."
    )
    quant_n_samples: int = pending(256, ge=1, description="Rows of --dataset that calibrate the quantization.")
    quant_seqlen: int = pending(2048, ge=1, description="Length of these rows in tokens.")
    quant_batch_size: int = pending(1, ge=1, description="Rows that are looked at together.")
    quant_device_map: str = pending("cpu", description="Where the model lies meanwhile: cpu, auto, cuda:0.")
    quant_output_dir: str | None = pending(
        None, description="Where the quantized model is written. None: <ckpt_dir>-<method>-int<bits>."
    )
    to_ollama: bool = pending(False, description="Write a Modelfile for Ollama.")
    ollama_output_dir: str | None = pending(None, description="Where it is written. None: <model_type>-ollama.")
    gguf_file: str | None = pending(None, description="GGUF file that the Modelfile refers to.")
    to_megatron: bool = pending(False, description="Convert to Megatron's layout.")
    to_hf: bool = pending(False, description="Convert from Megatron's layout.")
    megatron_output_dir: str | None = pending(None, description="Where Megatron's layout is written.")
    hf_output_dir: str | None = pending(None, description="Where the converted model is written.")
    pp: int = pending(1, ge=1, description="Pipeline parallel size of Megatron's layout.")
    commit_message: str = Field("update files", description="Message of the upload.")
