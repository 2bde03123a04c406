"""ModelScope through its own SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from modelscope_hub.compat import snapshot_download
from modelscope_hub.config import get_default_config
from modelscope_hub.errors import CacheNotFound, HubError, NotExistError
from requests import HTTPError

from llmtune.api import Hub, HubUnreachable, NotInCache, UnknownName

_UNWANTED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.tflite"]
_WEIGHTS = ["*.safetensors", "*.gguf"]
_SECONDS_TO_CONNECT = 5
_COMPLETE, _WITHOUT_WEIGHTS = ".llmtune-complete", ".llmtune-complete-without-weights"


class ModelScopeHub(Hub):
    """Snapshots live in the SDK's own cache, with a mark in those that were downloaded to the end.

    The SDK takes any folder that is not empty for a copy, also that of an interrupted download.

    `modelscope_hub` is the part of the SDK that talks to the hub; importing `modelscope` itself
    takes 3 s.
    """

    def snapshot(
        self,
        repo: str,
        *,
        kind: Literal["model", "dataset"],
        revision: str | None = None,
        cached_only: bool = False,
        weights: bool = True,
    ) -> Path:
        if not cached_only:
            _check_reachable()
        try:
            folder = snapshot_download(
                repo_id=repo,
                repo_type=kind,
                revision=revision,
                local_files_only=cached_only,
                ignore_patterns=_UNWANTED if weights else [*_UNWANTED, *_WEIGHTS],
            )
        except CacheNotFound as error:
            raise NotInCache(f"{repo} is not in the cache of modelscope") from error
        except HTTPError as error:  # how the SDK reports what its own NotExistError caused
            if isinstance(error.__cause__, NotExistError):
                raise UnknownName(f"modelscope has no {kind} {repo!r}") from error
            raise HubUnreachable(f"ModelScope failed for {kind} {repo}: {error}") from error
        except (HubError, OSError) as error:
            raise HubUnreachable(f"ModelScope failed for {kind} {repo}: {error}") from error
        marks = [Path(folder) / name for name in (_COMPLETE, *([] if weights else [_WITHOUT_WEIGHTS]))]
        if cached_only and not any(mark.exists() for mark in marks):
            raise NotInCache(f"the copy of {repo} in the cache may be incomplete")
        if not any(mark.exists() for mark in marks):
            marks[-1].touch()
        return Path(folder)


def _check_reachable() -> None:
    """The SDK retries for 22 s before it gives up on a machine without network; this takes one try."""
    import requests

    endpoint = str(get_default_config().endpoint)
    try:
        requests.head(endpoint, timeout=_SECONDS_TO_CONNECT)
    except requests.RequestException as error:
        raise HubUnreachable(f"ModelScope ({endpoint}) did not answer") from error
