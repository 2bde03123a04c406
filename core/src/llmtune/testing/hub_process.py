"""A hub that runs in a process of its own, for SDKs that read the environment when they are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from llmtune import errors
from llmtune.interfaces.hub import Hub

_SNAPSHOT = """
import json, sys
from llmtune.errors import LlmtuneError
from llmtune.testing.build import create
name, repo, keywords = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
try:
    answer = {"folder": str(create("hub", name).snapshot(repo, **keywords))}
except LlmtuneError as error:
    answer = {"error": type(error).__name__, "problem": error.problem, "fix": error.fix}
print("\\n" + json.dumps(answer))
"""


class HubProcess(Hub):
    """Calls `snapshot` of the installed hub `name` in a fresh Python with `environment` on top of this one's."""

    def __init__(self, name: str, environment: Mapping[str, str]) -> None:
        self.name, self.environment = name, {**os.environ, **environment}

    def snapshot(
        self, repo: str, *, kind: Literal["model", "dataset"], revision: str | None = None, cached_only: bool = False
    ) -> Path:
        keywords = json.dumps({"kind": kind, "revision": revision, "cached_only": cached_only})
        command = [sys.executable, "-c", _SNAPSHOT, self.name, repo, keywords]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"snapshot({repo!r}) of hub {self.name} raised what is no LlmtuneError:\n{done.stderr}")
        answer = json.loads(done.stdout.splitlines()[-1])
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["problem"], fix=answer["fix"])
        return Path(answer["folder"])
