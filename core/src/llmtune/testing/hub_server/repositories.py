"""Repositories as folders, who may read them, and what was uploaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from llmtune.testing.hub_server.messages import Call, Kind, Refused

USER = "llmtune"
"""Whom every token belongs to."""
_DEFAULT_REVISIONS = ("", "main", "master")
_LARGE = 1024 * 1024
_LARGE_SUFFIXES = (".safetensors", ".gguf", ".bin", ".parquet", ".arrow")


@dataclass(frozen=True, kw_only=True)
class Token:
    """What a caller with this token may do."""

    repos: frozenset[str]
    """Gated and private repositories that it may read; a token that may write reads all."""
    write: bool


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One accepted upload."""

    kind: Kind
    repo: str
    message: str


@dataclass(frozen=True)
class Snapshot:
    """One revision of a repository: a folder."""

    folder: Path

    @property
    def files(self) -> dict[str, Path]:
        """Name in the repository -> file, in order."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in paths}

    @property
    def commit(self) -> str:
        """40 hexadecimal digits that change with the content, as git's do."""
        lines = [f"{name} {sha256(path)}" for name, path in self.files.items()]
        return hashlib.sha1("\n".join(lines).encode(), usedforsecurity=False).hexdigest()

    def file(self, name: str) -> Path:
        try:
            return self.files[name]
        except KeyError:
            raise Refused("file") from None


@dataclass
class Repositories:
    """The repositories below `folder`: `models/owner/name` and `datasets/owner/name`.

    A folder `owner/name@v2` beside it is the revision v2. A commit goes into the folder itself.
    """

    folder: Path
    gated: set[str] = field(default_factory=set)
    """Repositories that everybody sees and only tokens with access download."""
    private: set[str] = field(default_factory=set)
    """Repositories that only tokens with access see."""
    tokens: dict[str, Token] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    _blobs: dict[str, bytes] = field(default_factory=dict)

    def place(self, repo: str, kind: Kind, revision: str = "") -> Path:
        name = repo if revision in _DEFAULT_REVISIONS else f"{repo}@{revision}"
        return self.folder / f"{kind}s" / name

    def token(self, call: Call) -> Token | None:
        if call.token is None:
            return None
        if call.token not in self.tokens:
            raise Refused("token")
        return self.tokens[call.token]

    def visible(self, repo: str, kind: Kind, call: Call) -> None:
        """Raise `Refused` unless the caller may know that the repository is there."""
        hidden = repo in self.private and not _may_read(self.token(call), repo)
        if hidden or not self.place(repo, kind).is_dir():
            raise Refused("repository")

    def open(self, repo: str, call: Call) -> None:
        """Raise `Refused` where the repository is gated and the caller has no access."""
        if repo in self.gated and not _may_read(self.token(call), repo):
            raise Refused("gated")

    def writable(self, call: Call) -> None:
        token = self.token(call)
        if token is None:
            raise Refused("login")
        if not token.write:
            raise Refused("write")

    def snapshot(self, repo: str, kind: Kind, revision: str, call: Call) -> Snapshot:
        """Return a revision by its name or its commit, for a caller who may see the repository."""
        self.token(call)
        self.visible(repo, kind, call)
        main = self.place(repo, kind)
        named = Snapshot(self.place(repo, kind, revision))
        if named.folder.is_dir():
            return named
        every = (Snapshot(path) for path in (main, *main.parent.glob(f"{main.name}@*")))
        for one in every:
            if one.commit == revision:
                return one
        raise Refused("revision")

    def create(self, repo: str, kind: Kind, *, private: bool) -> bool:
        """Make a repository; False when it was there before."""
        place = self.place(repo, kind)
        if place.is_dir():
            return False
        place.mkdir(parents=True)
        if private:
            self.private.add(repo)
        return True

    def blob(self, oid: str, repo: str, kind: Kind) -> bytes | None:
        """Return a large file that was sent before or is in the repository."""
        stored = (path.read_bytes() for path in Snapshot(self.place(repo, kind)).files.values() if sha256(path) == oid)
        return self._blobs.get(oid) or next(stored, None)

    def receive(self, oid: str, content: bytes) -> bool:
        """Keep a large file until a commit names it; False when its digest is another."""
        if hashlib.sha256(content).hexdigest() != oid:
            return False
        self._blobs[oid] = content
        return True

    def wanted(self, call: Call, repo: str, kind: Kind, address: str) -> dict[str, Any]:
        """Answer the batch request of git-lfs: where to send which large file. Both hubs use it."""
        objects = [
            dict(one)
            if self.blob(one["oid"], repo, kind)
            else {**one, "actions": {"upload": {"href": f"{address}/upload/{one['oid']}"}}}
            for one in call.json()["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def write(self, repo: str, kind: Kind, name: str, content: bytes) -> None:
        path = self.place(repo, kind) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _may_read(token: Token | None, repo: str) -> bool:
    return token is not None and (token.write or repo in token.repos)


def is_large(name: str, size: int) -> bool:
    """Whether the hub keeps a file apart from git, as large ones and weights are."""
    return size > 0 and (size > _LARGE or name.endswith(_LARGE_SUFFIXES))


def sha256(path: Path) -> str:
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, modified: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git_digest(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
