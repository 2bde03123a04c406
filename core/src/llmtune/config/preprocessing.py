"""Flags about how rows become training batches."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class PreprocessingSection(Section):
    """Preprocessing"""

    packing: bool = pending(False, description="Fill sequences of --max_length with several rows each.")
    lazy_tokenize: bool | None = pending(
        None, works=[False], description="Encode rows when they are needed. None: true for multimodal models only."
    )
    preprocess_num_proc: int = pending(1, ge=1, description="Processes that encode rows.")
    streaming: bool = pending(False, description="Read the data while training instead of before.")
    streaming_val_size: int = pending(0, ge=0, description="Rows of a stream that are kept for validation.")
    streaming_buffer_size: int = pending(16384, ge=1, description="Rows of a stream among which the order is mixed.")
    train_dataset_mix_ratio: float = pending(
        0.0, ge=0, description="General rows to mix in, per training row. Better: --dataset NAME#500."
    )
    train_dataset_mix_ds: list[str] = pending(
        ["ms-bench"], description="Datasets that --train_dataset_mix_ratio draws from."
    )
    rescale_image: int = pending(-1, ge=-1, description="Shrink images to this many pixels; -1: never.")
