"""A hub that runs in a process of its own, for SDKs that read the environment when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from llmtune import errors
from llmtune.interfaces.hub import Hub

_SERVE = """
import json, sys, traceback
from pathlib import Path
answers, sys.stdout = sys.stdout, sys.stderr
from llmtune.errors import LlmtuneError
from llmtune.testing.build import create
hub = create("hub", sys.argv[1])
upload = lambda folder, repo, **how: hub.upload(Path(folder), repo, **how)
calls = {"snapshot": hub.snapshot, "account": hub.account, "create": hub.create, "upload": upload}
for line in sys.stdin:
    method, arguments, keywords = json.loads(line)
    try:
        answer = {"result": str(calls[method](*arguments, **keywords))}
    except LlmtuneError as error:
        answer = {"error": type(error).__name__, "problem": error.problem, "fix": error.fix}
    except Exception:
        answer = {"crash": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""


class HubProcess(Hub):
    """Calls the installed hub `name` in another Python, with `environment` on top of this one's.

    Used with `with`. It starts once and answers many calls: empty the cache's folder between tests,
    and serve the repositories on a loopback address that `environment` names (`HubServer`).
    """

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, name],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> HubProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def snapshot(
        self,
        repo: str,
        *,
        kind: Literal["model", "dataset"],
        revision: str | None = None,
        cached_only: bool = False,
        weights: bool = True,
    ) -> Path:
        how = {"kind": kind, "revision": revision, "cached_only": cached_only, "weights": weights}
        return Path(self._ask("snapshot", repo, **how))

    def account(self, *, token: str | None = None) -> str:
        return self._ask("account", token=token)

    def create(self, repo: str, *, private: bool = False, token: str | None = None) -> str:
        return self._ask("create", repo, private=private, token=token)

    def upload(
        self, folder: Path, repo: str, *, private: bool = False, message: str = "", token: str | None = None
    ) -> str:
        return self._ask("upload", str(folder), repo, private=private, message=message, token=token)

    def _ask(self, method: str, *arguments: str, **keywords: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, arguments, keywords]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"crash": "the process ended"}')
        if "crash" in answer:
            raise RuntimeError(f"{method}{arguments} raised what is no LlmtuneError:\n{answer['crash']}")
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["problem"], fix=answer["fix"])
        return str(answer["result"])
