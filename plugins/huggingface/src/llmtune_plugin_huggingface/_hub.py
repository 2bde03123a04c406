"""The Hugging Face Hub through its own SDK."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llmtune.api import Hub, HubUnreachable, NotInCache, UnknownName

# Weights as pickles or of other frameworks are neither read nor downloaded.
_WEIGHTS = ["*.safetensors", "*.gguf"]
_UNWANTED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.tflite", "*.ot", "original/*"]


class HuggingFaceHub(Hub):
    """Snapshots live in the SDK's own cache."""

    def snapshot(
        self,
        repo: str,
        *,
        kind: Literal["model", "dataset"],
        revision: str | None = None,
        cached_only: bool = False,
        weights: bool = True,
    ) -> Path:
        unwanted = _UNWANTED if weights else [*_UNWANTED, *_WEIGHTS]
        try:
            folder = snapshot_download(
                repo, repo_type=kind, revision=revision, local_files_only=cached_only, ignore_patterns=unwanted
            )
        except GatedRepoError as error:
            raise UnknownName(f"huggingface {kind} {repo!r} is gated: accept its terms, then set HF_TOKEN") from error
        except RepositoryNotFoundError as error:
            raise UnknownName(f"huggingface has no {kind} {repo!r} (or it is private: set HF_TOKEN)") from error
        except RevisionNotFoundError as error:
            raise UnknownName(f"{kind} {repo!r} has no revision {revision!r}") from error
        except LocalEntryNotFoundError as error:
            if cached_only:
                raise NotInCache(f"{repo} is not in the cache of huggingface_hub") from error
            raise HubUnreachable(f"the Hugging Face Hub did not answer for {kind} {repo}") from error
        except OSError as error:
            raise HubUnreachable(f"the Hugging Face Hub failed for {kind} {repo}: {error}") from error
        return Path(folder)
