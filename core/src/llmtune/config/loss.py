"""Flags about the weight of each token in the loss."""

from __future__ import annotations

from llmtune.config.section import Section, pending


class LossSection(Section):
    """Loss"""

    use_loss_scale: bool = pending(False, description="Give parts of an agent's answer more or less weight.")
    loss_scale_config_path: str = pending(
        "DEFAULT", description="Weights by text: DEFAULT, alpha-umi, agent-flan or a JSON file."
    )
