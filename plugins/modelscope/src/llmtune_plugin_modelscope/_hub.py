"""ModelScope through its own SDK."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Literal, TypeVar

from modelscope_hub import HubApi
from modelscope_hub.compat import snapshot_download
from modelscope_hub.config import get_default_config
from modelscope_hub.constants import Visibility
from modelscope_hub.errors import (
    AlreadyExistsError,
    AuthenticationError,
    CacheNotFound,
    FileDownloadError,
    HubError,
    InvalidParameter,
    NotExistError,
    PermissionDeniedError,
    RateLimitError,
)

from llmtune.api import Hub, HubUnreachable, LlmtuneError, NotInCache, UnknownName, UsageError

Result = TypeVar("Result")

_UNWANTED = ["*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.tflite"]
_WEIGHTS = ["*.safetensors", "*.gguf"]
_SECONDS_TO_CONNECT = 5
_TOKENS = "https://modelscope.cn/my/myaccesstoken"
_RENEW = f"set MODELSCOPE_API_TOKEN to a valid one ({_TOKENS}), or log in again with `modelscope login`"
_ANSWERS = (NotExistError, AuthenticationError, PermissionDeniedError, RateLimitError)
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
        except (HubError, OSError) as error:
            raise _not_fetched(_origin(error), repo, kind, revision) from error
        marks = [Path(folder) / name for name in (_COMPLETE, *([] if weights else [_WITHOUT_WEIGHTS]))]
        if cached_only and not any(mark.exists() for mark in marks):
            raise NotInCache(f"the copy of {repo} in the cache may be incomplete")
        if not any(mark.exists() for mark in marks):
            marks[-1].touch()
        return Path(folder)

    def account(self, *, token: str | None = None) -> str:
        name = _writing(token, lambda api: str(api.whoami().username or ""))
        if not name:
            raise HubUnreachable("ModelScope did not say whose token it is", fix=_RENEW)
        return name

    def create(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        _writing(token, lambda api: _create(api, repo, private), repo)
        return _page(repo)

    def upload(
        self, folder: Path, repo: str, *, private: bool = False, message: str = "", token: str | None = None
    ) -> str:
        def send(api: HubApi) -> None:
            _create(api, repo, private)
            with redirect_stdout(sys.stderr):  # the SDK prints a report
                # Its cache is a file in the uploaded folder.
                api.upload_folder(repo, "model", folder, commit_message=message or None, use_cache=False)

        _writing(token, send, repo)
        return _page(repo)


def _page(repo: str) -> str:
    return f"{get_default_config().endpoint}/models/{repo}"


def _writing(token: str | None, call: Callable[[HubApi], Result], repo: str = "") -> Result:
    """Call with an API that has the given token, or that of MODELSCOPE_API_TOKEN or of the login.

    `HubApi.login` is not used: it writes the token to a file.
    """
    if not (token or get_default_config().token):
        raise UsageError(
            "an upload to ModelScope needs a token",
            fix=f"export MODELSCOPE_API_TOKEN=... ({_TOKENS}), or log in with `modelscope login`",
        )
    _check_reachable()
    try:
        return call(HubApi(token=token))
    except (HubError, OSError, RuntimeError) as error:  # RuntimeError: every batch of files was refused
        raise _not_uploaded(error, repo) from error


def _create(api: HubApi, repo: str, private: bool) -> None:
    """Create the repository, which the SDK would make a public one."""
    try:
        api.create_repo(repo, "model", visibility=Visibility.PRIVATE if private else Visibility.PUBLIC)
    except AlreadyExistsError:
        if private and api.get_repo(repo, "model").visibility == Visibility.PUBLIC:
            raise UsageError(
                f"the repository {repo} exists and is public",
                fix="choose another name, or make it private first on its page",
            ) from None


def _origin(error: Exception) -> Exception:
    """Return what the hub answered: the SDK puts it behind an error of requests, or one for all files."""
    behind = error.failed_files.values() if isinstance(error, FileDownloadError) else [error.__cause__]
    answers: Iterator[Exception] = (one for one in behind if isinstance(one, _ANSWERS))
    return next(answers, error)


def _not_fetched(error: Exception, repo: str, kind: str, revision: str | None) -> LlmtuneError:
    """Say why there is no snapshot, and what to do about it."""
    name, config = f"{kind} {repo!r}", get_default_config()
    page = f"{config.endpoint}/{kind}s/{repo}"
    if isinstance(error, NotExistError):
        return UnknownName(f"modelscope has no {name}" + (f" with the revision {revision!r}" if revision else ""))
    if isinstance(error, AuthenticationError) and config.token:
        return UnknownName(f"ModelScope rejected your token at {name}: {_RENEW}")
    if isinstance(error, AuthenticationError):
        return UnknownName(
            f"modelscope {name} needs a login: accept its terms at {page}, then set MODELSCOPE_API_TOKEN"
        )
    if isinstance(error, PermissionDeniedError):
        return UnknownName(f"modelscope {name} is gated or private and you have no access: ask for it at {page}")
    if isinstance(error, RateLimitError):
        return _too_many(error, name)
    return HubUnreachable(f"ModelScope failed for {name}: {error}")


def _not_uploaded(error: Exception, repo: str) -> LlmtuneError:
    """Say why an upload stopped, and what to do about it."""
    if isinstance(error, InvalidParameter):
        return UsageError(f"cannot upload to {repo!r} on ModelScope: {error.message}")
    if isinstance(error, AuthenticationError):
        return UsageError("ModelScope rejected your token", fix=_RENEW)
    if isinstance(error, PermissionDeniedError):
        return UsageError(f"your token may not write to {repo!r} on ModelScope", fix=_RENEW)
    if isinstance(error, RateLimitError):
        return _too_many(error, repo or "your account")
    if not repo:
        return HubUnreachable(f"ModelScope did not say whose token it is: {error}")
    return HubUnreachable(
        f"the upload to {repo!r} on ModelScope failed: {error}",
        fix="upload again; large files that arrived are not sent a second time",
    )


def _too_many(error: RateLimitError, name: str) -> HubUnreachable:
    return HubUnreachable(
        f"ModelScope limits requests (429) for {name}: wait {error.retry_after or 60} s and try again"
    )


def _check_reachable() -> None:
    """The SDK retries for 22 s before it gives up on a machine without network; this takes one try."""
    import requests

    endpoint = str(get_default_config().endpoint)
    try:
        requests.head(endpoint, timeout=_SECONDS_TO_CONNECT)
    except requests.RequestException as error:
        raise HubUnreachable(f"ModelScope ({endpoint}) did not answer") from error
