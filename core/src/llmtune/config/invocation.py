"""Flags about the call itself; they are no part of a run's record."""

from __future__ import annotations

from pydantic import Field

from llmtune.config.section import Section


class InvocationSection(Section):
    """This call"""

    print_config: bool = Field(False, description="Print the configuration as a run file and stop.")
    ignore_args_error: bool = Field(
        False, description="Warn about unknown options instead of stopping, e.g. in a notebook."
    )
