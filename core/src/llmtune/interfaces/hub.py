"""Hubs: where models and datasets come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal


class Hub(ABC):
    """Fetches repositories into a local cache."""

    @abstractmethod
    def snapshot(
        self,
        repo: str,
        *,
        kind: Literal["model", "dataset"],
        revision: str | None = None,
        cached_only: bool = False,
        weights: bool = True,
    ) -> Path:
        """Return the local folder of `repo`, downloading what is missing.

        With `weights` False a hub may leave out weight files: tokenizer and config are enough. Such a
        folder is no copy of the repository for a later call with `weights`.
        Raises `HubUnreachable` when the hub does not answer, `NotInCache` when `cached_only` and the
        cache holds no complete copy, `UnknownName` when the hub has no such repository.
        """

    def upload(self, folder: Path, repo: str, *, private: bool = False, message: str = "") -> str:
        """Upload `folder` and return the address of the repository. Optional for a hub."""
        from llmtune.errors import UsageError

        raise UsageError(f"the hub {type(self).__name__} is read-only", fix="choose another hub with --hub")
