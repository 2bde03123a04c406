"""The server: what is on it, what goes wrong next, and what was asked of it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from llmtune.testing.hub_server import huggingface, modelscope
from llmtune.testing.hub_server.listener import Listener
from llmtune.testing.hub_server.messages import Answer, Call, Kind, json_answer, ranged
from llmtune.testing.hub_server.repositories import Commit, Repositories, Token


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request that the server answered. The token itself is not kept."""

    method: str
    path: str
    """Path and query, decoded."""
    range: str | None
    """The Range header."""
    authorized: bool
    """Whether there was an Authorization header."""
    status: int
    file: str | None
    """The file of a repository that was asked for."""


@dataclass(kw_only=True)
class _Fault:
    """What happens instead to the next `times` requests that fit."""

    answer: Answer | None
    """None answers as usual, up to `cut`."""
    cut: int | None
    times: int
    method: str
    path: str
    release: threading.Event | None = None
    """What is waited for before the answer."""

    def fits(self, call: Call) -> bool:
        return self.times > 0 and self.path in call.target and self.method in ("", call.method)


class HubServer:
    """Serves a folder of repositories on 127.0.0.1 to the SDKs of Hugging Face and ModelScope.

        with HubServer(tmp_path) as server:
            server.add("ada/model", {"config.json": b"{}"})
            with HubProcess("huggingface", server.environment(tmp_path / "home")) as hub:
                hub.snapshot("ada/model", kind="model")

    The repositories are folders: `models/owner/name` and `datasets/owner/name` below the one given,
    and `models/owner/name@v2` is the revision v2. What is uploaded lies there afterwards.
    """

    def __init__(self, folder: Path) -> None:
        self._hub = Repositories(folder)
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        """All requests since the start or the last `reset`, in the order in which they came."""

    def __enter__(self) -> HubServer:
        self._listener = Listener(self._answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    @property
    def folder(self) -> Path:
        return self._hub.folder

    @property
    def address(self) -> str:
        return self._listener.address

    def environment(self, home: Path | None = None) -> dict[str, str]:
        """Return the variables that make both SDKs talk to this server.

        With `home`, caches and logins are kept there, and no token of the user is sent.
        """
        variables = {
            "HF_ENDPOINT": self.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",  # xet needs a storage service of its own; git-lfs is served
            "MODELSCOPE_ENDPOINT": self.address,
            "NO_PROXY": "127.0.0.1",
        }
        if home is None:
            return variables
        tokens = dict.fromkeys(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"), "")
        places = {"HF_HOME": "huggingface", "MODELSCOPE_HOME": "modelscope", "MODELSCOPE_CACHE": "modelscope-cache"}
        return variables | tokens | {name: str(home / folder) for name, folder in places.items()}

    # --- what is on it ---------------------------------------------------------------------------

    def place(self, repo: str, kind: Kind = "model", revision: str = "") -> Path:
        """Return the folder of a repository."""
        return self._hub.place(repo, kind, revision)

    def add(self, repo: str, files: Mapping[str, bytes], kind: Kind = "model", revision: str = "") -> Path:
        """Write `files` into a repository, or into one of its revisions."""
        place = self.place(repo, kind, revision)
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        return place

    def gate(self, repo: str) -> None:
        """Let everybody see the repository, and only tokens with access download it."""
        self._hub.gated.add(repo)

    def hide(self, repo: str) -> None:
        """Make the repository private: for others it does not exist."""
        self._hub.private.add(repo)

    def is_private(self, repo: str) -> bool:
        return repo in self._hub.private

    def add_token(self, token: str, *, repos: Iterable[str] = (), write: bool = False) -> None:
        """Accept a token: for these gated and private repositories, or with `write` for all and for uploads.

        A token that was not added is rejected. All belong to the user `llmtune`.
        """
        self._hub.tokens[token] = Token(repos=frozenset(repos), write=write)

    def revoke_token(self, token: str) -> None:
        """Reject a token from now on."""
        del self._hub.tokens[token]

    # --- what goes wrong -------------------------------------------------------------------------

    def fail_next(
        self,
        status: int,
        *,
        times: int = 1,
        path: str = "",
        method: str = "",
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the next `times` requests with `status`: those with `path` in their path or query, and this method."""
        wait = {} if retry_after is None else {"Retry-After": str(retry_after)}
        answer = json_answer({}, status, **wait, **(headers or {}))
        self._faults.append(_Fault(answer=answer, cut=None, times=times, method=method, path=path))

    def cut_next(self, after: int, *, times: int = 1, path: str = "") -> None:
        """Close the connection after `after` bytes of the next `times` downloads with `path` in their path or query."""
        self._faults.append(_Fault(answer=None, cut=after, times=times, method="GET", path=path))

    def fail_no_more(self) -> None:
        """Forget the failures that did not happen yet."""
        self._faults.clear()

    def hold_next(self, *, path: str = "", method: str = "") -> threading.Event:
        """Let the next request with `path` in its path or query, and this method, wait until the event is set."""
        release = threading.Event()
        self._faults.append(_Fault(answer=None, cut=None, times=1, method=method, path=path, release=release))
        return release

    def reset(self) -> None:
        """Forget requests, faults, tokens and restrictions; the files stay."""
        self.requests.clear()
        self._faults.clear()
        self._hub = Repositories(self._hub.folder)

    # --- what was asked --------------------------------------------------------------------------

    @property
    def fetched(self) -> list[str]:
        """The files that were downloaded, whole or in part, in the order of the requests."""
        return [one.file for one in self.requests if one.file and one.method == "GET" and one.status < 300]

    @property
    def commits(self) -> list[Commit]:
        """The uploads that were accepted."""
        return self._hub.commits

    def _answer(self, call: Call) -> Answer:
        answer = ranged(self._with_faults(call), call.headers.get("Range"))
        self.requests.append(
            Request(
                method=call.method,
                path=call.target,
                range=call.headers.get("Range"),
                authorized="Authorization" in call.headers,
                status=answer.status,
                file=answer.file,
            )
        )
        return answer

    def _with_faults(self, call: Call) -> Answer:
        with self._lock:
            fault = next((one for one in self._faults if one.fits(call)), None)
            if fault is not None:
                fault.times -= 1
        if fault is None:
            return self._usual(call)
        if fault.release is not None:
            fault.release.wait(60)
        return fault.answer or dataclasses.replace(self._usual(call), cut=fault.cut)

    def _usual(self, call: Call) -> Answer:
        if call.path == "/":
            return Answer()
        if call.method == "PUT" and call.path.startswith("/upload/"):
            return Answer(status=200 if self._hub.receive(call.path.removeprefix("/upload/"), call.body) else 400)
        answers = (protocol.answer(self._hub, self.address, call) for protocol in (huggingface, modelscope))
        return next((answer for answer in answers if answer is not None), Answer(status=404))
