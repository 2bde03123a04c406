"""Hubs: where models and datasets come from, and where models go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from llmtune.errors import UsageError


class Hub(ABC):
    """Fetches repositories into a local cache, and uploads folders."""

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

    def account(self, *, token: str | None = None) -> str:
        """Return the name of the user or organisation that uploads belong to. Optional, as all below.

        `token` None is the one that the hub's own library finds (its environment variable or login). Raises
        `UsageError` where there is none, where the hub refuses it, or where it is known not to write.
        """
        raise self._read_only()

    def create(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        """Create the repository unless it exists, and return its address.

        Raises `UsageError` where the token may not write there, and for a public one that should be `private`.
        """
        raise self._read_only()

    def upload(
        self, folder: Path, repo: str, *, private: bool = False, message: str = "", token: str | None = None
    ) -> str:
        """Upload `folder` over what the repository holds, creating it if need be, and return its address.

        Files of other names stay in the repository. The token is stored nowhere.
        """
        raise self._read_only()

    def _read_only(self) -> UsageError:
        return UsageError(f"the hub {type(self).__name__} is read-only", fix="choose another hub with --hub")
