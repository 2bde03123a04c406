"""What is asked of a hub for an upload, each time in a process of its own.

So training goes on at its speed, what the hub's library prints does not get between the lines of the run,
its settings and its threads stay out of this process, and a run that is stopped does not wait for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmtune import errors
from llmtune.config import environment
from llmtune.errors import HubUnreachable, Interrupted, LlmtuneError
from llmtune.interfaces.hub import Hub

_HIDDEN = "<token>"


@dataclass(kw_only=True)
class HubCalls:
    """The upload side of one hub, with the token of one user."""

    hub: str
    """Its qualified name ("huggingface::huggingface")."""
    token: str | None = field(default=None, repr=False)
    """None: the hub's library finds it."""
    local: tuple[str, ...] = ()
    """Files of --custom_register_path, which may bring the hub."""
    _running: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)
    _stopped: bool = field(default=False, init=False, repr=False)

    def open(self, repo: str, *, private: bool, create: bool) -> str:
        """Return the full name of a repository that the token may write to, and with `create` see that it exists."""
        return self._ask("open", repo=repo, private=private, create=create)

    def upload(self, folder: Path, repo: str, *, private: bool, message: str) -> str:
        """Upload the folder and return the address of the repository."""
        return self._ask("upload", folder=str(folder), repo=repo, private=private, message=message)

    def stop(self) -> None:
        """End the call that is under way, and answer no other."""
        self._stopped = True
        if self._running is not None:
            self._running.kill()

    def _ask(self, method: str, **arguments: Any) -> str:
        """Return the answer of the function `method` below, or raise what it raised; no message holds a token."""
        question = {"hub": self.hub, "local": self.local, "method": method, "arguments": arguments, "token": self.token}
        if self._stopped:
            raise Interrupted("the upload was stopped")
        with subprocess.Popen(
            [sys.executable, "-m", "llmtune.train.hub_calls"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the run, which decides
        ) as process:
            self._running = process
            if self._stopped:  # since the line above
                process.kill()
            try:
                out, err = process.communicate(json.dumps(question))
            except BaseException:
                process.kill()
                raise
            finally:
                self._running = None
        if self._stopped:
            raise Interrupted("the upload was stopped")
        return self._understood(out, err, process.returncode)

    def _understood(self, out: str, err: str, code: int) -> str:
        try:
            answer: Mapping[str, str] = json.loads(out)
        except ValueError:
            last = next(iter(reversed(err.strip().splitlines())), "it wrote nothing")
            raise HubUnreachable(self._clean(f"the process for {self.hub} ended with code {code}: {last}")) from None
        if "result" in answer:
            return answer["result"]
        kind: type[LlmtuneError] = getattr(errors, answer["error"])
        raise kind(self._clean(answer["problem"]), fix=self._clean(answer["fix"]))

    def _clean(self, text: str) -> str:
        for token in (self.token, *environment.tokens()):
            text = text.replace(token, _HIDDEN) if token else text
        return text


# --- the side of the process ----------------------------------------------------------------------


def _open(hub: Hub, token: str | None, *, repo: str, private: bool, create: bool) -> str:
    account = hub.account(token=token)
    full = repo if "/" in repo else f"{account}/{repo}"
    if create:
        hub.create(full, private=private, token=token)
    return full


def _upload(hub: Hub, token: str | None, *, folder: str, repo: str, private: bool, message: str) -> str:
    return hub.upload(Path(folder), repo, private=private, message=message, token=token)


_METHODS: dict[str, Callable[..., str]] = {"open": _open, "upload": _upload}


def _answer(hub: str, local: list[str], method: str, arguments: dict[str, Any], token: str | None) -> dict[str, str]:
    try:
        return {"result": _METHODS[method](_find(hub, local), token, **arguments)}
    except LlmtuneError as error:
        kind = type(error).__name__ if hasattr(errors, type(error).__name__) else "LlmtuneError"
        return {"error": kind, "problem": error.problem, "fix": error.fix}


def _find(name: str, local: list[str]) -> Hub:
    """Build the hub `name` of an installed plugin, or of a file in `local`."""
    from llmtune.plugins.catalogue import discover
    from llmtune.plugins.local import add_local_plugins
    from llmtune.plugins.manager import PluginManager
    from llmtune.specs import RunContext, RunPlan

    catalogue = discover(only=environment.only_plugins(), disabled=environment.disabled_plugins())
    catalogue = add_local_plugins(catalogue, local) if local else catalogue
    run = RunContext(plan=RunPlan(command="export"))
    entry = catalogue.find("hub", name)
    manager = PluginManager(catalogue)
    hub: Hub = manager.provide("llmtune_create_hub", entry, name=entry.name, options=None, run=run)
    return hub


def _main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print reports
    print(json.dumps(_answer(**json.load(sys.stdin))), file=answers)


if __name__ == "__main__":
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]  # as in llmtune/__main__.py
    _main()
