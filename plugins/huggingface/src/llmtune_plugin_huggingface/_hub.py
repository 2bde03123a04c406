"""The Hugging Face Hub through its own SDK."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from httpx import ConnectError, HTTPError, Response
from huggingface_hub import HfApi, RepoUrl, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # exported lazily

from llmtune.api import Hub, HubUnreachable, LlmtuneError, NotInCache, UnknownName, UsageError

Result = TypeVar("Result")

# Weights as pickles or of other frameworks are neither read nor downloaded.
_WEIGHTS = ["*.safetensors", "*.gguf"]
_UNWANTED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.tflite", "*.ot", "original/*"]
_REPEATS, _LONGEST_WAIT = 4, 60
_TOKENS = "https://huggingface.co/settings/tokens"
_RENEW = f"set HF_TOKEN to a valid one ({_TOKENS}), or log in again with `hf auth login`"


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
        def download() -> str:
            unwanted = _UNWANTED if weights else [*_UNWANTED, *_WEIGHTS]
            return snapshot_download(
                repo, repo_type=kind, revision=revision, local_files_only=cached_only, ignore_patterns=unwanted
            )

        try:
            folder = Path(_patiently(download))
        except HFValidationError as error:
            raise UnknownName(f"huggingface has no {kind} {repo!r}: {error}") from error
        except (OSError, HTTPError) as error:
            if cached_only and isinstance(error, LocalEntryNotFoundError):
                raise NotInCache(f"{repo} is not in the cache of huggingface_hub") from error
            raise _not_fetched(_origin(error), repo, kind, revision) from error
        if cached_only and not _is_whole(folder, kind, weights):
            raise NotInCache(f"the copy of {repo} in the cache of huggingface_hub may be incomplete")
        return folder

    def account(self, *, token: str | None = None) -> str:
        found = _writing(token, lambda: HfApi(token=_token(token)).whoami())
        role = found.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise UsageError("your token for the Hugging Face Hub may only read", fix=_RENEW)
        return str(found["name"])

    def create(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        return str(_writing(token, lambda: _create(HfApi(token=_token(token)), repo, private), repo))

    def upload(
        self, folder: Path, repo: str, *, private: bool = False, message: str = "", token: str | None = None
    ) -> str:
        def send() -> str:
            api = HfApi(token=_token(token))
            address = _create(api, repo, private)
            api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message=message or None)
            return str(address)

        try:
            return _writing(token, send, repo)
        except ValueError as error:
            raise UsageError(f"{folder} cannot be uploaded to {repo!r}: {error}") from error


def _token(token: str | None) -> str:
    """Return the given token, or that of HF_TOKEN or of the login."""
    found = token or get_token()
    if not found:
        raise UsageError(
            "an upload to the Hugging Face Hub needs a token that may write",
            fix=f"export HF_TOKEN=... ({_TOKENS}), or log in with `hf auth login`",
        )
    return found


def _writing(token: str | None, call: Callable[[], Result], repo: str = "") -> Result:
    """Call, with patience, and say in our words why that failed."""
    _token(token)
    try:
        return _patiently(call)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no name of a repository: {error}") from error
    except (OSError, HTTPError, RuntimeError) as error:  # RuntimeError: a large file that could not be sent
        raise _not_uploaded(_origin(error), repo) from error


def _is_whole(folder: Path, kind: str, weights: bool) -> bool:
    """Other programs put single files into the same cache; only `snapshot_download` notes which ones there are.

    A model that came into the cache in another way passes when it has weights: offline there is nothing better.
    """
    if (folder.parents[1] / "trees" / f"{folder.name}.json").is_file():
        return True
    found = {path.suffix for path in folder.rglob("*")}
    return kind == "model" and (not weights or not found.isdisjoint((".safetensors", ".gguf")))


def _create(api: HfApi, repo: str, private: bool) -> RepoUrl:
    address: RepoUrl = api.create_repo(repo, private=private, exist_ok=True)
    if private and not api.model_info(address.repo_id).private:
        raise UsageError(
            f"the repository {address.repo_id} exists and is public",
            fix=f"choose another name, or make it private first: {address}/settings",
        )
    return address


def _patiently(call: Callable[[], Result]) -> Result:
    """Repeat a call that is answered with 429 after the time that the Hub asks for.

    The SDK does so for files. What it asks before them, it asks once.
    """
    for _ in range(_REPEATS):
        try:
            return call()
        except OSError as error:
            response = _response(_origin(error))
            if response is None or response.status_code != 429 or _wait(response) > _LONGEST_WAIT:
                raise
            time.sleep(_wait(response))
    return call()


def _wait(response: Response) -> int:
    """Return the seconds to wait after a 429, which the Hub states in one of two headers."""
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    asked = response.headers.get("Retry-After", "")
    return int(asked) if asked.isdigit() else 1


def _origin(error: Exception) -> Exception:
    """Return what the Hub answered, which the SDK hides behind errors of its cache and of its threads."""
    return error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error


def _response(error: Exception) -> Response | None:
    return error.response if isinstance(error, HfHubHTTPError) else None


def _not_fetched(error: Exception, repo: str, kind: str, revision: str | None) -> LlmtuneError:
    """Say why there is no snapshot, and what to do about it."""
    name, response = f"{kind} {repo!r}", _response(error)
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    if isinstance(error, GatedRepoError) and error.response.status_code == 401:
        return UnknownName(f"huggingface {name} is gated: accept its terms at {page}, then set HF_TOKEN")
    if isinstance(error, GatedRepoError):
        return UnknownName(f"huggingface {name} is gated and your token has no access: ask for it at {page}")
    if isinstance(error, RepositoryNotFoundError):
        return UnknownName(f"huggingface has no {name} (or it is private: set HF_TOKEN)")
    if isinstance(error, RevisionNotFoundError):
        return UnknownName(f"huggingface {name} has no revision {revision!r}")
    if response is not None and response.status_code == 401:
        return UnknownName(f"the Hugging Face Hub rejected your token at {name}: {_RENEW}")
    if response is not None and response.status_code == 429:
        return _too_many(response, name)
    if isinstance(error, LocalEntryNotFoundError | ConnectError):
        return HubUnreachable(f"the Hugging Face Hub ({constants.ENDPOINT}) did not answer for {name}")
    return HubUnreachable(f"the Hugging Face Hub failed for {name}: {error}")


def _not_uploaded(error: Exception, repo: str) -> LlmtuneError:
    """Say why an upload stopped, and what to do about it."""
    response = _response(error)
    if response is not None and response.status_code == 401:
        return UsageError("the Hugging Face Hub rejected your token", fix=_RENEW)
    if response is not None and response.status_code in (403, 404):
        return UsageError(f"your token may not write to {repo!r} on the Hugging Face Hub", fix=_RENEW)
    if response is not None and response.status_code == 429:
        return _too_many(response, repo or "your account")
    if not repo:
        return HubUnreachable(f"the Hugging Face Hub ({constants.ENDPOINT}) did not say whose token it is: {error}")
    return HubUnreachable(
        f"the upload to {repo!r} on the Hugging Face Hub ({constants.ENDPOINT}) failed: {error}",
        fix="upload again; large files that arrived are not sent a second time",
    )


def _too_many(response: Response, name: str) -> HubUnreachable:
    return HubUnreachable(
        f"the Hugging Face Hub limits requests (429) for {name}: wait {_wait(response)} s, or set HF_TOKEN for more"
    )
