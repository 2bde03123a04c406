"""The HTTP interface that `modelscope_hub` speaks: /api/v1, with ModelScope's envelope around every answer."""

from __future__ import annotations

import base64
import re
from email import message_from_bytes
from pathlib import Path
from typing import Any

from llmtune.testing.hub_server.messages import Answer, Call, Kind, Refusal, Refused, json_answer, route
from llmtune.testing.hub_server.repositories import USER, Commit, Repositories, Snapshot, sha256

_PRIVATE, _PUBLIC = 1, 5


def answer(hub: Repositories, address: str, call: Call) -> Answer | None:
    """Answer a call of this interface, None for any other."""
    try:
        return route(_ROUTES, call, hub, address)
    except Refused as refused:
        return _refusal(refused.reason, call)


# reason -> (status without a token, status with one, message)
_REFUSALS: dict[Refusal, tuple[int, int, str]] = {
    "login": (401, 401, "user not logged in"),
    "token": (401, 401, "AccessToken is invalid or expired"),
    "repository": (404, 404, "Record not found"),
    "revision": (404, 404, "Revision not found"),
    "file": (404, 404, "File not found"),
    "gated": (401, 403, "access to the repository is restricted"),
    "write": (403, 403, "no permission to write"),
}


def _refusal(reason: Refusal, call: Call) -> Answer:
    without, with_token, message = _REFUSALS[reason]
    return _failure(with_token if call.token else without, message)


def _failure(status: int, message: str, code: int | None = None) -> Answer:
    return json_answer({"Code": code or status, "Data": None, "Message": message, "Success": False}, status)


def _success(data: object) -> Answer:
    return json_answer({"Code": 200, "Data": data, "Message": "", "Success": True})


def _kind(segment: str) -> Kind:
    return "dataset" if segment == "datasets" else "model"


def _snapshot(hub: Repositories, call: Call, segment: str, repo: str) -> Snapshot:
    snapshot = hub.snapshot(repo, _kind(segment), call.query.get("Revision", ""), call)
    hub.open(repo, call)
    return snapshot


def _info(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    hub.snapshot(repo, _kind(segment), "", call)
    owner, _, name = repo.partition("/")
    return _success({"Path": owner, "Name": name, "Visibility": _PRIVATE if repo in hub.private else _PUBLIC})


def _open_info(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    hub.snapshot(repo, _kind(segment), "", call)
    return json_answer({"success": True, "data": {"id": repo, "private": repo in hub.private}})


def _files(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    """List all of a model, or one page of a dataset."""
    entries = [_entry(name, path) for name, path in _snapshot(hub, call, segment, repo).files.items()]
    size = int(call.query.get("PageSize", len(entries)))
    start = (int(call.query.get("PageNumber", 1)) - 1) * size
    return _success({"Files": entries[start : start + size]})


def _entry(name: str, path: Path) -> dict[str, Any]:
    return {
        "Path": name,
        "Name": path.name,
        "Type": "blob",
        "Size": path.stat().st_size,
        "Sha256": sha256(path),
    }


def _file(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    name = call.query["FilePath"]
    return Answer(content=_snapshot(hub, call, segment, repo).file(name).read_bytes(), file=name)


def _revisions(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    hub.snapshot(repo, _kind(segment), "", call)
    place = hub.place(repo, _kind(segment))
    tags = [path.name.partition("@")[2] for path in sorted(place.parent.glob(f"{place.name}@*"))]
    return _success(
        {"RevisionMap": {"Branches": [{"Revision": "master"}], "Tags": [{"Revision": tag} for tag in tags]}}
    )


def _create(hub: Repositories, address: str, call: Call, segment: str) -> Answer:
    hub.writable(call)
    asked = call.json() if segment == "models" else _form(call)
    repo = f"{asked.get('Path') or asked['Owner']}/{asked['Name']}"
    if not hub.create(repo, _kind(segment), private=int(asked["Visibility"]) == _PRIVATE):
        return _failure(400, "the name is in use", code=10010101001 if segment == "models" else 10020101001)
    return _success({"Name": asked["Name"]})


def _form(call: Call) -> dict[str, str]:
    """Read multipart/form-data, which datasets are created with."""
    form = message_from_bytes(b"Content-Type: " + call.headers["Content-Type"].encode() + b"\r\n\r\n" + call.body)
    parts = [part for part in form.walk() if not part.is_multipart()]
    return {
        str(part.get_param("name", header="Content-Disposition")): part.get_payload(decode=True).decode()  # type: ignore[union-attr]
        for part in parts
    }


def _lfs(hub: Repositories, address: str, call: Call, segment: str, repo: str) -> Answer:
    hub.writable(call)
    return _success(hub.wanted(call, repo, _kind(segment), address))


def _commit(hub: Repositories, address: str, call: Call, segment: str, repo: str, revision: str) -> Answer:
    hub.writable(call)
    kind = _kind(segment)
    place, asked = hub.snapshot(repo, kind, revision, call).folder, call.json()
    for action in asked["actions"]:
        if action["action"] == "delete":
            (place / action["path"]).unlink()
            continue
        normal = action["type"] == "normal"
        content = base64.b64decode(action["content"]) if normal else hub.blob(action["sha256"], repo, kind)
        if content is None:
            return _failure(400, f"{action['path']} was not uploaded")
        hub.write(repo, kind, action["path"], content)
    hub.commits.append(Commit(kind=kind, repo=repo, message=asked["commit_message"]))
    return _success({"oid": Snapshot(place).commit})


def _user(hub: Repositories, address: str, call: Call) -> Answer:
    if hub.token(call) is None:
        raise Refused("login")
    return json_answer({"success": True, "data": {"username": USER, "email": ""}})


def _region(hub: Repositories, address: str, call: Call) -> Answer:
    """This server is in no region of Alibaba's cloud."""
    return _success({})


_REPO = r"([^/]+/[^/]+)"
_API = rf"/api/v1/(models|datasets)/{_REPO}"
_REPOS_API = rf"/api/v1/repos/(models|datasets)/{_REPO}"
_ROUTES = (
    ("GET", re.compile(_API), _info),
    ("GET", re.compile(rf"/openapi/v1/(models|datasets)/{_REPO}"), _open_info),
    ("GET", re.compile(rf"{_API}/repo/(?:files|tree)"), _files),
    ("GET HEAD", re.compile(rf"{_API}/repo"), _file),
    ("GET", re.compile(rf"{_API}/revisions"), _revisions),
    ("POST", re.compile("/api/v1/(models|datasets)"), _create),
    ("POST", re.compile(rf"{_REPOS_API}/info/lfs/objects/batch"), _lfs),
    ("POST", re.compile(rf"{_REPOS_API}/commit/(.+)"), _commit),
    ("GET", re.compile("/openapi/v1/users/me"), _user),
    ("GET", re.compile("/api/v1/repos/internalAccelerationInfo"), _region),
)
