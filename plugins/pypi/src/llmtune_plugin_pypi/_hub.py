"""Fetch a wheel with `pip download` and unpack it; nothing of it is installed or executed.

A wheel is a zip file and is only unpacked; source distributions are refused, because building one
runs its code.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from llmtune.api import DataError, Hub, HubUnreachable, NotInCache, UnknownName, UsageError, put_in_place

_NO_SUCH = re.compile(r"No matching distribution found")
_NO_CONNECTION = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|Temporary failure", re.IGNORECASE
)


class PypiHub(Hub):
    """Keeps each unpacked wheel in `cache/<dist>-<version>/`."""

    def __init__(self, cache: Path, say: Callable[[str], None]) -> None:
        self.cache, self.say = cache, say

    def snapshot(
        self,
        repo: str,
        *,
        kind: Literal["model", "dataset"],
        revision: str | None = None,
        cached_only: bool = False,
        weights: bool = True,
    ) -> Path:
        requirement = _requirement(repo, revision)
        if revision and not requirement.specifier.contains(revision, prereleases=True):
            raise UnknownName(f"the package index has no revision {revision!r} of {repo}; versions are its revisions")
        cached = self._cached(requirement)
        if cached is not None:
            return cached
        if cached_only:
            raise NotInCache(f"{requirement} is not in {self.cache}")
        self.say(f"pypi: downloading {requirement}")
        return self._download(requirement)

    def _cached(self, requirement: Requirement) -> Path | None:
        """Return the newest complete copy that fits; folders are called `<dist>-<version>`."""
        found: dict[Version, Path] = {}
        for mark in self.cache.glob(f"{canonicalize_name(requirement.name)}-*/.complete"):
            version = _version(mark.parent.name.removeprefix(f"{canonicalize_name(requirement.name)}-"))
            if version is not None and requirement.specifier.contains(version, prereleases=True):
                found[version] = mark.parent
        return found[max(found)] if found else None

    def _download(self, requirement: Requirement) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache) as folder:
            # pip names a connection as the cause only when it retries.
            options = ("--no-deps", "--only-binary=:all:", "--retries", "1", "--dest", folder)
            command = [sys.executable, "-m", "pip", "download", *options, str(requirement)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise _failure(requirement, done.stderr)
            return self._unpack(next(Path(folder).glob("*.whl")))

    def _unpack(self, wheel: Path) -> Path:
        name, version, _, _ = parse_wheel_filename(wheel.name)
        final = self.cache / f"{name}-{version}"
        staged = wheel.with_name("unpacked")
        with zipfile.ZipFile(wheel) as archive:
            _check_members(archive, wheel.name)
            archive.extractall(staged)
        (staged / ".complete").touch()
        if final.exists() and not (final / ".complete").exists():  # of a version that did not stage
            final.rename(wheel.with_name("damaged"))
        return put_in_place(staged, final)


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:  # the folder of a distribution whose name starts the same
        return None


def _requirement(repo: str, revision: str | None) -> Requirement:
    try:
        requirement = Requirement(f"{repo}=={revision}" if revision and "==" not in repo else repo)
    except InvalidRequirement as error:
        raise UsageError(
            f"pypi::{repo} is not a package name: {error}", fix="write pypi::dist or pypi::dist==1.0"
        ) from error
    if requirement.url:
        raise UsageError(f"pypi::{repo} names an address", fix="write pypi::dist or pypi::dist==1.0")
    return requirement


def _failure(requirement: Requirement, output: str) -> Exception:
    """pip tells network trouble and unknown names apart in its messages only."""
    if _NO_CONNECTION.search(output):
        return HubUnreachable(f"the package index did not answer for {requirement}")
    if _NO_SUCH.search(output):
        return UnknownName(f"the package index has no wheel for {requirement}")
    lines = [line for line in output.strip().splitlines() if line] or ["pip download failed"]
    return HubUnreachable(f"pip download {requirement}: {lines[-1]}")


def _check_members(archive: zipfile.ZipFile, name: str) -> None:
    for member in archive.namelist():
        if member.startswith(("/", "\\")) or ".." in Path(member).parts:
            raise DataError(f"wheel {name} holds a file outside itself: {member}", fix="do not use this package")
