"""The hub `huggingface`: its own SDK against a hub on this machine."""

import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from llmtune.errors import HubUnreachable, NotInCache, UnknownName, UsageError
from llmtune.testing import HubProcess, HubServer, HubTests, ManifestTests

REPO = "tiny/model"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights",
    "nested/vocab.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}
ROWS = {"train.jsonl": b'{"query": "2+2", "response": "4"}\n', "README.md": b"# Sums\n"}
CHUNK = 10 * 1024 * 1024  # what the SDK writes at once; a download goes on after the last whole one
READER, STRANGER, WRITER = "hf_reader-secret", "hf_stranger-secret", "hf_writer-secret"


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_huggingface" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def process(running, home):
    """The hub that talks to the server; the SDK reads its settings when it is imported."""
    with HubProcess("huggingface", running.environment(home)) as hub:
        yield hub


@pytest.fixture(scope="module")
def unanswered(running, home):
    """The same hub and cache, with an address where nobody listens."""
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with HubProcess("huggingface", {**running.environment(home), "HF_ENDPOINT": address}) as hub:
            yield hub


@pytest.fixture
def server(running, home):
    """The server as new, and an empty cache."""
    running.reset()
    for folder in (running.folder, home):
        shutil.rmtree(folder, ignore_errors=True)
    commit = {".commit": uuid.uuid4().bytes}  # a new one: the SDK remembers the files of those that it saw
    running.add(REPO, FILES | commit)
    running.add(REPO, ROWS | commit, kind="dataset")
    running.add_token(READER, repos=[REPO])
    running.add_token(STRANGER)
    running.add_token(WRITER, write=True)
    return running


@pytest.fixture
def hub(server, process):
    return process


@pytest.fixture
def log_in(home):
    """Log in as `hf auth login` does."""

    def write(token):
        file = home / "huggingface" / "token"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(token)

    return write


@pytest.fixture
def folder(tmp_path):
    """Something to upload, with one file that the hub takes apart from git."""
    files = {"adapter_config.json": b"{}", "adapter.safetensors": b"\0" * 2000, "README.md": b"# Ada\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def files_of(folder):
    """The files of a repository or of its copy, without what the fixture `server` adds."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".commit")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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


# --- what is downloaded ---------------------------------------------------------------------------


def test_pickles_are_not_downloaded(server, hub):
    found = files_of(hub.snapshot(REPO, kind="model"))
    assert found == {name: content for name, content in FILES.items() if name != "pytorch_model.bin"}
    assert sorted(server.fetched) == sorted([*found, ".commit"])


def test_a_dataset_is_another_repository_than_the_model_of_its_name(hub):
    assert files_of(hub.snapshot(REPO, kind="dataset")) == ROWS


def test_without_weights_only_the_small_files_are_fetched(server, hub):
    hub.snapshot(REPO, kind="model", weights=False)
    assert "config.json" in server.fetched
    assert "model.safetensors" not in server.fetched
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"


def test_a_second_snapshot_fetches_no_file(server, hub):
    hub.snapshot(REPO, kind="model")
    server.requests.clear()
    hub.snapshot(REPO, kind="model")
    assert server.fetched == []


def test_a_revision_is_the_one_that_was_asked_for(server, hub):
    server.add(REPO, {"config.json": b"the second"}, revision="v2")
    assert files_of(hub.snapshot(REPO, kind="model", revision="v2")) == {"config.json": b"the second"}
    assert (hub.snapshot(REPO, kind="model") / "config.json").read_bytes() == FILES["config.json"]


def test_an_unknown_revision_is_named(hub):
    with pytest.raises(UnknownName, match="'tiny/model' has no revision 'v9'"):
        hub.snapshot(REPO, kind="model", revision="v9")


# --- connections that break -----------------------------------------------------------------------


def test_an_interrupted_download_is_not_a_copy(server, hub):
    server.fail_next(500, path="model.safetensors", method="GET")
    with pytest.raises(HubUnreachable, match=REPO):
        hub.snapshot(REPO, kind="model")
    with pytest.raises(NotInCache):
        hub.snapshot(REPO, kind="model", cached_only=True)
    server.requests.clear()
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"
    assert server.fetched == ["model.safetensors"]


def test_a_download_that_breaks_off_goes_on_from_where_it_was(server, hub):
    weights = bytes(range(256)) * ((CHUNK + 4096) // 256)
    server.add(REPO, {"model.safetensors": weights})
    server.cut_next(CHUNK + 1024, path="model.safetensors")
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == weights
    ranges = [one.range for one in server.requests if one.file == "model.safetensors" and one.method == "GET"]
    assert ranges == [None, f"bytes={CHUNK}-"]


@pytest.mark.usefixtures("server")
def test_an_endpoint_that_does_not_answer(unanswered):
    with pytest.raises(HubUnreachable, match=rf"\(http://127.* did not answer for model '{REPO}'"):
        unanswered.snapshot(REPO, kind="model")


def test_what_is_in_the_cache_is_used_without_an_answer(hub, unanswered):
    folder = hub.snapshot(REPO, kind="model")
    assert unanswered.snapshot(REPO, kind="model", cached_only=True) == folder


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_single_files_that_another_program_put_into_the_cache_are_no_copy(server, hub, home, kind):
    folder = home / "huggingface" / "hub" / f"{kind}s--tiny--model"
    for name, content in (("refs/main", "c0ffee" * 7), (f"snapshots/{'c0ffee' * 7}/config.json", "{}")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    with pytest.raises(NotInCache, match="may be incomplete"):
        hub.snapshot(REPO, kind=kind, cached_only=True)


# --- too many requests ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/revision/main", "/tree/", "/resolve/"])
def test_a_hub_that_asks_to_wait_is_asked_again(server, hub, path):
    server.fail_next(429, times=2, path=path, retry_after=0)
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"
    assert [one.status for one in server.requests].count(429) == 2


@pytest.mark.parametrize("header", [{"Retry-After": "3000"}, {"RateLimit": '"api";r=0;t=3000'}], ids=str)
def test_a_hub_that_asks_to_wait_for_long_is_not_waited_for(server, hub, header):
    server.fail_next(429, times=9, path="/revision/main", headers=header)
    with pytest.raises(HubUnreachable, match=r"limits requests \(429\) for model 'tiny/model': wait 3000 s.*HF_TOKEN"):
        hub.snapshot(REPO, kind="model")
    assert len(server.requests) == 1


# --- who may read ---------------------------------------------------------------------------------


def test_an_unknown_repository_may_be_private(hub):
    with pytest.raises(UnknownName, match=r"no model 'nobody/nothing' .*HF_TOKEN"):
        hub.snapshot("nobody/nothing", kind="model")


def test_an_id_that_cannot_be_one_is_named(hub):
    with pytest.raises(UnknownName, match="no model 'a/b/c'"):
        hub.snapshot("a/b/c", kind="model")


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_gated_repository_says_where_to_accept_its_terms(server, hub, kind):
    server.gate(REPO)
    page = f"{server.address}/{'datasets/' if kind == 'dataset' else ''}{REPO}"
    with pytest.raises(UnknownName, match=f"{kind} '{REPO}' is gated: accept its terms at {page}, then set HF_TOKEN"):
        hub.snapshot(REPO, kind=kind)


def test_a_token_without_access_to_a_gated_repository_says_where_to_ask(server, hub, log_in):
    server.gate(REPO)
    log_in(STRANGER)
    with pytest.raises(UnknownName, match=f"'{REPO}' is gated and your token has no access: .*{server.address}"):
        hub.snapshot(REPO, kind="model")
    assert any(one.authorized for one in server.requests)


def test_a_token_with_access_opens_a_gated_repository(server, hub, log_in):
    server.gate(REPO)
    log_in(READER)
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"


def test_a_private_repository_is_there_for_its_readers_only(server, hub, log_in):
    server.hide(REPO)
    for token in ("", STRANGER):
        log_in(token)
        with pytest.raises(UnknownName, match=r"or it is private: set HF_TOKEN"):
            hub.snapshot(REPO, kind="model")
    log_in(READER)
    assert "config.json" in files_of(hub.snapshot(REPO, kind="model"))


def test_a_token_that_is_rejected_is_named_as_the_reason(hub, log_in, capfd):
    log_in("hf_expired-secret")
    with pytest.raises(UnknownName, match="rejected your token at model 'tiny/model': set HF_TOKEN") as caught:
        hub.snapshot(REPO, kind="model")
    assert "secret" not in str(caught.value) + "".join(capfd.readouterr())


# --- uploads --------------------------------------------------------------------------------------


def test_what_was_uploaded_can_be_downloaded(server, hub, log_in, folder):
    log_in(WRITER)
    assert hub.upload(folder, "ada/adapter", message="First try") == f"{server.address}/ada/adapter"
    assert files_of(server.place("ada/adapter")) == files_of(folder)
    assert files_of(hub.snapshot("ada/adapter", kind="model")) == files_of(folder)
    assert [(one.repo, one.message) for one in server.commits] == [("ada/adapter", "First try")]
    assert not server.is_private("ada/adapter")


def test_a_second_upload_sends_what_changed(server, hub, log_in, folder):
    log_in(WRITER)
    hub.upload(folder, "ada/adapter")
    (folder / "adapter_config.json").write_text('{"r": 8}')
    server.requests.clear()
    hub.upload(folder, "ada/adapter")
    assert files_of(server.place("ada/adapter")) == files_of(folder)
    assert [one for one in server.requests if one.method == "PUT"] == []


def test_a_private_upload_is_for_its_readers_only(server, hub, log_in, folder):
    log_in(WRITER)
    hub.upload(folder, "ada/secret", private=True)
    assert server.is_private("ada/secret")
    log_in("")
    with pytest.raises(UnknownName):
        hub.snapshot("ada/secret", kind="model")


def test_a_private_upload_does_not_go_into_a_public_repository(server, hub, log_in, folder):
    log_in(WRITER)
    with pytest.raises(UsageError, match="tiny/model exists and is public"):
        hub.upload(folder, REPO, private=True)
    assert server.commits == []


def test_the_token_may_come_from_the_environment_and_is_not_shown(server, home, folder, capfd):
    with HubProcess("huggingface", {**server.environment(home), "HF_TOKEN": WRITER}) as hub:
        hub.upload(folder, "ada/adapter")
    assert server.commits
    assert WRITER not in "".join(capfd.readouterr())
    assert not [path for path in home.rglob("*") if path.is_file() and WRITER.encode() in path.read_bytes()]


def test_an_upload_without_a_token_says_which_variable_to_set(server, hub, folder):
    with pytest.raises(UsageError, match=r"needs a token that may write\n.*export HF_TOKEN="):
        hub.upload(folder, "ada/adapter")
    assert server.requests == []


def test_an_upload_with_a_token_that_is_rejected(hub, log_in, folder):
    log_in("hf_expired-secret")
    with pytest.raises(UsageError, match=r"rejected your token\n.*HF_TOKEN") as caught:
        hub.upload(folder, "ada/adapter")
    assert "secret" not in str(caught.value)


def test_an_upload_with_a_token_that_may_only_read(hub, log_in, folder):
    log_in(STRANGER)
    with pytest.raises(UsageError, match="may not write to 'ada/adapter'"):
        hub.upload(folder, "ada/adapter")


def test_a_token_says_whose_it_is(server, hub, home):
    assert hub.account(token=WRITER) == "llmtune"
    assert [one.path for one in server.requests] == ["/api/whoami-v2"]
    assert not [path for path in home.rglob("*") if path.is_file() and WRITER.encode() in path.read_bytes()]


def test_a_token_that_is_given_goes_before_that_of_the_login(server, hub, log_in, folder):
    log_in("hf_expired-secret")
    hub.upload(folder, "ada/adapter", token=WRITER)
    assert files_of(server.place("ada/adapter")) == files_of(folder)


@pytest.mark.parametrize(
    ("token", "problem"),
    [(None, "needs a token"), ("hf_expired-secret", "rejected your token"), (STRANGER, "may only read")],
)
def test_a_token_that_cannot_upload_is_refused(server, hub, token, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        hub.account(token=token)
    assert "HF_TOKEN" in caught.value.fix
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_hub_that_does_not_say_whose_the_token_is(unanswered):
    with pytest.raises(HubUnreachable, match=r"\(http://127.* did not say whose token it is"):
        unanswered.account(token=WRITER)


def test_a_repository_is_created_once(server, hub):
    for _ in range(2):
        assert hub.create("ada/new", private=True, token=WRITER) == f"{server.address}/ada/new"
    assert server.is_private("ada/new")
    with pytest.raises(UsageError, match="tiny/model exists and is public"):
        hub.create(REPO, private=True, token=WRITER)
    with pytest.raises(UsageError, match="may not write to 'ada/other'"):
        hub.create("ada/other", token=STRANGER)
    with pytest.raises(UsageError, match="'a/b/c' is no name of a repository"):
        hub.create("a/b/c", token=WRITER)


def test_an_upload_to_a_hub_that_asks_to_wait(server, hub, log_in, folder):
    log_in(WRITER)
    server.fail_next(429, path="/api/repos/create", retry_after=0)
    server.fail_next(429, path="/commit/", retry_after=0)
    hub.upload(folder, "ada/adapter")
    assert files_of(server.place("ada/adapter")) == files_of(folder)


def test_an_upload_that_the_hub_breaks_off(server, hub, log_in, folder):
    log_in(WRITER)
    server.fail_next(400, path="/upload/")
    with pytest.raises(HubUnreachable, match=r"the upload to 'ada/adapter' .* failed"):
        hub.upload(folder, "ada/adapter")
    assert server.commits == []


@pytest.mark.usefixtures("server")
def test_an_upload_to_an_endpoint_that_does_not_answer(unanswered, log_in, folder):
    log_in(WRITER)
    with pytest.raises(HubUnreachable, match=r"'ada/adapter' on the Hugging Face Hub \(http://127.* failed"):
        unanswered.upload(folder, "ada/adapter")


def test_a_dataset_uploaded_with_the_sdk_can_be_downloaded(server, hub, home, folder):
    code = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("ada/rows", repo_type="dataset")
api.upload_folder(repo_id="ada/rows", repo_type="dataset", folder_path=sys.argv[1])
"""
    environment = {**os.environ, **server.environment(home), "HF_TOKEN": WRITER}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True)
    assert files_of(hub.snapshot("ada/rows", kind="dataset")) == files_of(folder)
