"""The hub `modelscope` against a small server on this machine that speaks its HTTP interface."""

import hashlib
import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from llmtune.errors import HubUnreachable, NotInCache, UnknownName
from llmtune.testing import HubProcess, HubTests, ManifestTests

REPO = "tiny/model"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "nested/vocab.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_modelscope" / "llmtune-plugin.toml"


class Server(ThreadingHTTPServer):
    """Serves one model. `broken` names a file whose download fails."""

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
        parts = urlsplit(self.path)
        if parts.path == "/":
            return self.answer(200, b"")
        if parts.path == f"/api/v1/models/{REPO}/repo/files":
            return self.json({"Files": [self.entry(name) for name in FILES]})
        if parts.path == f"/api/v1/models/{REPO}/repo":
            return self.file(parse_qs(parts.query)["FilePath"][0])
        return self.json(None, 404, "Record not found")

    def entry(self, name):
        digest = hashlib.sha256(FILES[name]).hexdigest()
        return {"Path": name, "Name": Path(name).name, "Type": "blob", "Size": len(FILES[name]), "Sha256": digest}

    def json(self, data, status=200, message=""):
        content = {"Code": status, "Data": data, "Message": message, "Success": status == 200}
        self.answer(status, json.dumps(content).encode(), "application/json")

    def file(self, name):
        if name == self.server.broken:
            return self.json(None, 403, "broken on purpose")
        if self.command == "GET":
            self.server.fetched.append(name)
        return self.answer(200, FILES[name])

    def answer(self, status, body, content_type="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", content_type)
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
    folder = tmp_path_factory.mktemp("ms")
    return {"MODELSCOPE_CACHE": str(folder / "cache"), "MODELSCOPE_HOME": str(folder / "home")}


@pytest.fixture(scope="module")
def process(running, environment):
    """The hub that talks to the server; the SDK reads its settings when it is imported."""
    with HubProcess("modelscope", {**environment, "MODELSCOPE_ENDPOINT": running.address}) as hub:
        yield hub


@pytest.fixture(scope="module")
def unanswered(environment):
    """The same hub and cache, with an address where nobody listens."""
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with HubProcess("modelscope", {**environment, "MODELSCOPE_ENDPOINT": address}) as hub:
            yield hub


@pytest.fixture
def server(running, environment):
    """The server as new, and an empty cache."""
    running.broken = ""
    running.fetched.clear()
    shutil.rmtree(environment["MODELSCOPE_CACHE"], ignore_errors=True)
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


def test_pickles_are_not_downloaded(server, hub):
    folder = hub.snapshot(REPO, kind="model")
    assert {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()} == {
        name: content for name, content in FILES.items() if name != "pytorch_model.bin"
    }
    assert "pytorch_model.bin" not in server.fetched


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


def test_an_unknown_repository_is_no_connection_problem(hub):
    with pytest.raises(UnknownName, match="modelscope has no model 'nobody/nothing'"):
        hub.snapshot("nobody/nothing", kind="model")


@pytest.mark.usefixtures("server")
def test_an_endpoint_that_does_not_answer(unanswered):
    with pytest.raises(HubUnreachable, match=r"ModelScope \(http://127.* did not answer"):
        unanswered.snapshot(REPO, kind="model")


def test_what_is_in_the_cache_is_used_without_an_answer(hub, unanswered):
    folder = hub.snapshot(REPO, kind="model")
    assert unanswered.snapshot(REPO, kind="model", cached_only=True) == folder
