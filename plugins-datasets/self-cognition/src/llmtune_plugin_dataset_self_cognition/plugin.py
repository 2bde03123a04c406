"""Hooks of the dataset `self-cognition`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmtune.api import Preprocessor, Row, RunContext, UsageError, hookimpl
from llmtune_plugin_dataset_self_cognition.options import SelfCognitionOptions

_LANGUAGES = ("zh", "en")


@hookimpl
def llmtune_create_preprocessor(name: str, options: Any, run: RunContext) -> Preprocessor:
    problem = _missing(options)
    if problem:
        raise UsageError(problem)
    return Fill(options)


@hookimpl
def llmtune_check_plan(plan: Any, config: Any) -> Iterable[str]:
    options = config.options("preprocessor", "self-cognition")
    problem = _missing(options) if options is not None else ""
    return [problem] if problem else []


def _missing(options: SelfCognitionOptions) -> str:
    """Say which names are missing; empty text when none is."""
    missing = [f"--{flag}" for flag in ("model_name", "model_author") if not all(getattr(options, flag))]
    if not missing:
        return ""
    example = "--model_name 小智 Ada --model_author 团队 'The Ada team'"
    return f"dataset self-cognition needs {' and '.join(missing)} (Chinese, then English), e.g. {example}"


class Fill:
    """Puts the names into one row, in its language."""

    def __init__(self, options: SelfCognitionOptions) -> None:
        self.names = dict(zip(_LANGUAGES, options.model_name, strict=True))
        self.authors = dict(zip(_LANGUAGES, options.model_author, strict=True))

    def __call__(self, record: Mapping[str, Any]) -> Row:
        language = record["tag"]
        query, response = (self._filled(record[column], language) for column in ("query", "response"))
        return {"messages": [{"role": "user", "content": query}, {"role": "assistant", "content": response}]}

    def _filled(self, text: str, language: str) -> str:
        return text.replace("{{NAME}}", str(self.names[language])).replace("{{AUTHOR}}", str(self.authors[language]))
