"""Names of models, datasets and templates as attributes: `ModelType.qwen_7b_chat` is "qwen-7b-chat"."""

from __future__ import annotations

import re

from llmtune.plugins.catalogue import known_names
from llmtune.python.session import current_catalogue


class _Names(type):
    """Turns attributes of its classes into names of `kind`."""

    kind: str

    def __getattr__(cls, attribute: str) -> str:
        if attribute.startswith("_"):
            raise AttributeError(f"type object {cls.__name__!r} has no attribute {attribute!r}")
        return cls._known().get(attribute) or _with_dashes(attribute)

    def __dir__(cls) -> list[str]:
        return [*super().__dir__(), *cls._known()]

    def _known(cls) -> dict[str, str]:
        """Return identifier -> name; of two that look alike, an installed one wins."""
        names = [*known_names(cls.kind), *current_catalogue().names(cls.kind)]
        return {_identifier(name): name for name in names}


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


# Of the 56 models, 36 datasets and 14 templates in SWIFT's README of 2023 this gets all right, of the
# 409 models of its release 2.4 it gets 376.
_KEPT = re.compile(r"(?<=[a-z_]\d)_(?=\d(?:_|$))|(?<=_[01])_(?=\db)")
"""Where a `_` is a decimal point: versions (`qwen2_5-...`, `v1_5`) and small sizes (`qwen-1_8b`)."""


def _with_dashes(attribute: str) -> str:
    kept = {found.start() for found in _KEPT.finditer(attribute)}
    return "".join("-" if sign == "_" and at not in kept else sign for at, sign in enumerate(attribute))


class ModelType(metaclass=_Names):
    """The models: `dir(ModelType)` lists those of installed plugins and of llmtune's own.

    An attribute that belongs to none of them has its `_` replaced by `-`, except where it looks like a
    decimal point. That is a guess (`qwen2_1_5b` could be 2.1 or 1.5): a plugin's own name is sure.
    Whether there is such a model is checked where the name is used.
    """

    kind = "model"


class DatasetName(metaclass=_Names):
    """The datasets; see `ModelType`."""

    kind = "dataset"


class TemplateType(metaclass=_Names):
    """The chat templates; see `ModelType`."""

    kind = "template"
