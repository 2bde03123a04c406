"""The HTTP interface that `huggingface_hub` speaks: /api/models, /resolve, commits and git-lfs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from llmtune.testing.hub_server.messages import Answer, Call, Kind, Refusal, Refused, json_answer, route
from llmtune.testing.hub_server.repositories import USER, Commit, Repositories, Snapshot, git_digest, is_large, sha256


def answer(hub: Repositories, address: str, call: Call) -> Answer | None:
    """Answer a call of this interface, None for any other."""
    try:
        return route(_ROUTES, call, hub, address)
    except Refused as refused:
        return _refusal(refused.reason, call)


# reason -> (status without a token, status with one, what the SDK reads)
_REFUSALS: dict[Refusal, tuple[int, int, dict[str, str]]] = {
    "login": (401, 401, {"X-Error-Message": "Invalid username or password."}),
    "token": (401, 401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "repository": (401, 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
    "revision": (404, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}),
    "file": (404, 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}),
    "gated": (401, 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this repository is restricted"}),
    "write": (403, 403, {"X-Error-Message": "You don't have the rights to write here"}),
}


def _refusal(reason: Refusal, call: Call) -> Answer:
    without, with_token, headers = _REFUSALS[reason]
    status = with_token if call.token else without
    return json_answer({"error": headers["X-Error-Message"]}, status, **headers)


def _kind(segment: str) -> Kind:
    return "dataset" if segment.startswith("dataset") else "model"


def _info(hub: Repositories, address: str, call: Call, segment: str, repo: str, revision: str) -> Answer:
    snapshot = hub.snapshot(repo, _kind(segment), revision, call)
    return json_answer(
        {
            "id": repo,
            "sha": snapshot.commit,
            "private": repo in hub.private,
            "gated": "auto" if repo in hub.gated else False,
            "siblings": [{"rfilename": name} for name in snapshot.files],
        }
    )


def _tree(hub: Repositories, address: str, call: Call, segment: str, repo: str, revision: str, below: str) -> Answer:
    files = hub.snapshot(repo, _kind(segment), revision, call).files
    found = {name: path for name, path in files.items() if name.startswith(f"{below}/" if below else "")}
    if below and not found:
        raise Refused("file")
    return json_answer([_entry(name, path) for name, path in found.items()])


def _entry(name: str, path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    entry = {"type": "file", "path": name, "size": size, "oid": git_digest(path.read_bytes())}
    return entry | ({"lfs": {"oid": sha256(path), "size": size, "pointerSize": 134}} if is_large(name, size) else {})


def _file(hub: Repositories, address: str, call: Call, segment: str, repo: str, revision: str, name: str) -> Answer:
    snapshot = hub.snapshot(repo, _kind(segment), revision, call)
    hub.open(repo, call)
    path = snapshot.file(name)
    headers = {"ETag": f'"{_digest(name, path)}"', "X-Repo-Commit": snapshot.commit}
    return Answer(content=path.read_bytes(), headers=headers, file=name)


def _digest(name: str, path: Path) -> str:
    return sha256(path) if is_large(name, path.stat().st_size) else git_digest(path.read_bytes())


def _whoami(hub: Repositories, address: str, call: Call) -> Answer:
    token = hub.token(call)
    if token is None:
        raise Refused("login")
    role = {"accessToken": {"role": "write" if token.write else "read"}}
    return json_answer({"type": "user", "name": USER, "orgs": [], "auth": role})


def _create(hub: Repositories, address: str, call: Call) -> Answer:
    hub.writable(call)
    asked = call.json()
    kind, repo = _kind(asked.get("type", "model")), f"{asked.get('organization') or USER}/{asked['name']}"
    created = hub.create(repo, kind, private=asked.get("visibility") == "private")
    url = f"{address}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    return json_answer({"url": url, "name": repo}, 200 if created else 409)


def _valid_yaml(hub: Repositories, address: str, call: Call) -> Answer:
    return json_answer({"errors": [], "warnings": []})


def _upload_modes(hub: Repositories, address: str, call: Call, segment: str, repo: str, revision: str) -> Answer:
    hub.writable(call)
    present = hub.snapshot(repo, _kind(segment), revision, call).files
    return json_answer(
        {
            "files": [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"], file["size"]) else "regular",
                    "shouldIgnore": False,
                    "oid": _digest(file["path"], present[file["path"]]) if file["path"] in present else None,
                }
                for file in call.json()["files"]
            ]
        }
    )


def _lfs(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    hub.writable(call)
    return json_answer(hub.wanted(call, repo, _kind(segment), address))


def _commit(hub: Repositories, address: str, call: Call, segment: str, repo: str, revision: str) -> Answer:
    hub.writable(call)
    kind = _kind(segment)
    place = hub.snapshot(repo, kind, revision, call).folder
    message = ""
    for line in call.body.splitlines():
        key, value = (item := json.loads(line))["key"], item["value"]
        if key == "header":
            message = value["summary"]
        elif key == "deletedFile":
            (place / value["path"]).unlink()
        else:
            content = base64.b64decode(value["content"]) if key == "file" else hub.blob(value["oid"], repo, kind)
            if content is None:
                return json_answer({"error": f"{value['path']} was not uploaded"}, 400)
            hub.write(repo, kind, value["path"], content)
    hub.commits.append(Commit(kind=kind, repo=repo, message=message))
    commit = Snapshot(place).commit
    return json_answer({"success": True, "commitOid": commit, "commitUrl": f"{address}/{repo}/commit/{commit}"})


_REPO = r"([^/]+/[^/]+?)"
_API = rf"/api/(models|datasets)/{_REPO}"
_ROUTES = (
    ("GET", re.compile(rf"{_API}(?:/revision/(.+))?"), _info),
    ("GET", re.compile(rf"{_API}/tree/([^/]+)(?:/(.+))?"), _tree),
    ("GET HEAD", re.compile(rf"/(datasets/)?{_REPO}/resolve/([^/]+)/(.+)"), _file),
    ("GET", re.compile("/api/whoami-v2"), _whoami),
    ("POST", re.compile("/api/repos/create"), _create),
    ("POST", re.compile("/api/validate-yaml"), _valid_yaml),
    ("POST", re.compile(rf"{_API}/preupload/([^/]+)"), _upload_modes),
    ("POST", re.compile(rf"/(datasets/)?{_REPO}\.git/info/lfs/objects/batch"), _lfs),
    ("POST", re.compile(rf"{_API}/commit/([^/]+)"), _commit),
)
