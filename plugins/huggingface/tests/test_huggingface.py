"""The hub `huggingface` against a small server on this machine that speaks the Hub's HTTP interface."""

import hashlib
import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llmtune.errors import HubUnreachable, NotInCache, UnknownName
from llmtune.testing import HubProcess, HubTests, ManifestTests

REPO, SHA = "tiny/model", "c0ffee" * 6 + "c0ff"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "nested/vocab.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_huggingface" / "llmtune-plugin.toml"


class Server(ThreadingHTTPServer):
    """Serves one repository, as a model and as a dataset. `broken` names a file whose download fails."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.broken = ""
        self.fetched = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        """Stay quiet."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.partition("?")[0].lstrip("/")
        for kind, prefix in (("models", REPO), ("datasets", f"datasets/{REPO}")):
            if path == f"api/{kind}/{REPO}/revision/main":
                return self.json({"id": REPO, "sha": SHA, "siblings": [{"rfilename": name} for name in FILES]})
            if path.startswith(f"api/{kind}/{REPO}/tree/"):
                return self.json([self.entry(name) for name in FILES])
            if path.startswith(f"api/{kind}/{REPO}/revision/"):
                return self.error("RevisionNotFound")
            if path.startswith(f"{prefix}/resolve/"):
                return self.file(path.removeprefix(f"{prefix}/resolve/").partition("/")[2])
        if path.startswith("api/models/tiny/gated/"):
            return self.error("GatedRepo", 403)
        return self.error("RepoNotFound")

    def entry(self, name):
        return {"type": "file", "path": name, "size": len(FILES[name]), "oid": hashlib.sha1(FILES[name]).hexdigest()}

    def json(self, content):
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def error(self, code, status=404):
        self.answer(status, b"", {"X-Error-Code": code})

    def file(self, name):
        if name == self.server.broken and self.command == "GET":
            return self.error("EntryNotFound", 500)
        if self.command == "GET":
            self.server.fetched.append(name)
        return self.answer(200, FILES[name], {"ETag": f'"{self.entry(name)["oid"]}"', "X-Repo-Commit": SHA})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def running():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf")
    return {"HF_HOME": str(folder), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture(scope="module")
def process(running, environment):
    """The hub that talks to the server; the SDK reads its settings when it is imported."""
    with HubProcess("huggingface", {**environment, "HF_ENDPOINT": running.address}) as hub:
        yield hub


@pytest.fixture(scope="module")
def unanswered(environment):
    """The same hub and cache, with an address where nobody listens."""
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with HubProcess("huggingface", {**environment, "HF_ENDPOINT": address}) as hub:
            yield hub


@pytest.fixture
def server(running, environment):
    """The server as new, and an empty cache."""
    running.broken = ""
    running.fetched.clear()
    shutil.rmtree(environment["HF_HOME"], ignore_errors=True)
    return running


@pytest.fixture
def hub(server, process):
    return process


class TestHub(HubTests):
    @pytest.fixture
    def hub(self, server, process):
        return process

    @pytest.fixture
    def repo(self):
        return REPO


class TestDatasets(HubTests):
    kind = "dataset"

    @pytest.fixture
    def hub(self, server, process):
        return process

    @pytest.fixture
    def repo(self):
        return REPO


def test_pickles_are_not_downloaded(server, hub):
    folder = hub.snapshot(REPO, kind="model")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in FILES.items() if name != "pytorch_model.bin"}
    assert sorted(server.fetched) == sorted(found)


def test_without_weights_only_the_small_files_are_fetched(server, hub):
    hub.snapshot(REPO, kind="model", weights=False)
    assert "config.json" in server.fetched
    assert "model.safetensors" not in server.fetched
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"


def test_a_second_snapshot_fetches_no_file(server, hub):
    hub.snapshot(REPO, kind="model")
    server.fetched.clear()
    hub.snapshot(REPO, kind="model")
    assert server.fetched == []


def test_an_interrupted_download_is_not_a_copy(server, hub):
    server.broken = "model.safetensors"
    with pytest.raises(HubUnreachable, match=REPO):
        hub.snapshot(REPO, kind="model")
    with pytest.raises(NotInCache):
        hub.snapshot(REPO, kind="model", cached_only=True)
    server.broken = ""
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"


def test_an_unknown_revision_is_named(hub):
    with pytest.raises(UnknownName, match="'tiny/model' has no revision 'v9'"):
        hub.snapshot(REPO, kind="model", revision="v9")


def test_an_unknown_repository_may_be_private(hub):
    with pytest.raises(UnknownName, match=r"no model 'nobody/nothing' .*HF_TOKEN"):
        hub.snapshot("nobody/nothing", kind="model")


def test_a_gated_repository_says_what_to_do(hub):
    with pytest.raises(UnknownName, match="gated: accept its terms, then set HF_TOKEN"):
        hub.snapshot("tiny/gated", kind="model")


@pytest.mark.usefixtures("server")
def test_an_endpoint_that_does_not_answer(unanswered):
    with pytest.raises(HubUnreachable, match=f"did not answer for model {REPO}"):
        unanswered.snapshot(REPO, kind="model")


def test_what_is_in_the_cache_is_used_without_an_answer(hub, unanswered):
    folder = hub.snapshot(REPO, kind="model")
    assert unanswered.snapshot(REPO, kind="model", cached_only=True) == folder
