"""The hub `modelscope`: its own SDK against a hub on this machine."""

import os
import shutil
import socket
import subprocess
import sys
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
READER, STRANGER, WRITER = "ms-reader-secret", "ms-stranger-secret", "ms-writer-secret"


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_modelscope" / "llmtune-plugin.toml"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def start(running, home):
    """Start the hub with further settings; the SDK reads them when it is imported."""
    processes = {}

    def start(**settings):
        key = tuple(settings.items())
        if key not in processes:
            settings = {"MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1", **settings}  # each further one takes twice as long
            processes[key] = HubProcess("modelscope", {**running.environment(home), **settings})
        return processes[key]

    yield start
    for process in processes.values():
        process.__exit__(None, None, None)


@pytest.fixture(scope="module")
def unanswered(start):
    """The same hub and cache, with an address where nobody listens."""
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        yield start(MODELSCOPE_ENDPOINT=f"http://127.0.0.1:{taken.getsockname()[1]}", MODELSCOPE_API_TOKEN=WRITER)


@pytest.fixture
def server(running, home):
    """The server as new, and an empty cache."""
    running.reset()
    for folder in (running.folder, home):
        shutil.rmtree(folder, ignore_errors=True)
    running.add(REPO, FILES)
    running.add(REPO, ROWS, kind="dataset")
    running.add_token(READER, repos=[REPO])
    running.add_token(STRANGER)
    running.add_token(WRITER, write=True)
    return running


@pytest.fixture
def hub(server, start):
    return start()


@pytest.fixture
def with_token(server, start):
    """The hub with a token."""
    return lambda token: start(MODELSCOPE_API_TOKEN=token)


@pytest.fixture
def folder(tmp_path):
    """Something to upload, with one file that the hub takes apart from git."""
    files = {"adapter_config.json": b"{}", "adapter.safetensors": b"\0" * 2000, "README.md": b"# Ada\n"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def files_of(folder):
    """The files of a repository or of its copy, without the marks of the copy."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".llmtune-")
    }


class TestHub(HubTests):
    @pytest.fixture
    def hub(self, server, start):
        return start()

    @pytest.fixture
    def repo(self):
        return REPO


class TestDatasets(HubTests):
    kind = "dataset"

    @pytest.fixture
    def hub(self, server, start):
        return start()

    @pytest.fixture
    def repo(self):
        return REPO


# --- what is downloaded ---------------------------------------------------------------------------


def test_pickles_are_not_downloaded(server, hub):
    found = files_of(hub.snapshot(REPO, kind="model"))
    assert found == {name: content for name, content in FILES.items() if name != "pytorch_model.bin"}
    assert sorted(server.fetched) == sorted(found)


def test_a_dataset_is_another_repository_than_the_model_of_its_name(hub):
    assert files_of(hub.snapshot(REPO, kind="dataset")) == ROWS


def test_a_dataset_of_several_pages_is_fetched_whole(server, hub):
    rows = {f"part-{number:03}.jsonl": b"{}\n" for number in range(205)}  # the SDK asks for 200 at a time
    server.add("tiny/parts", rows, kind="dataset")
    assert files_of(hub.snapshot("tiny/parts", kind="dataset")) == rows


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
    with pytest.raises(UnknownName, match="no model 'tiny/model' with the revision 'v9'"):
        hub.snapshot(REPO, kind="model", revision="v9")


# --- connections that break -----------------------------------------------------------------------


def test_an_interrupted_download_is_not_a_copy(server, hub):
    server.fail_next(500, times=2, path="model.safetensors")
    with pytest.raises(HubUnreachable, match=REPO):
        hub.snapshot(REPO, kind="model")
    with pytest.raises(NotInCache):
        hub.snapshot(REPO, kind="model", cached_only=True)
    server.requests.clear()
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"
    assert server.fetched == ["model.safetensors"]


def test_a_download_that_breaks_off_goes_on_from_where_it_was(server, hub):
    weights = bytes(range(256)) * 16
    server.add(REPO, {"model.safetensors": weights})
    server.cut_next(1000, times=2, path="model.safetensors")
    with pytest.raises(HubUnreachable):
        hub.snapshot(REPO, kind="model")
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == weights
    ranges = [one.range for one in server.requests if one.file == "model.safetensors"]
    assert ranges == [None, "bytes=1000-", "bytes=2000-"]


@pytest.mark.usefixtures("server")
def test_an_endpoint_that_does_not_answer(unanswered):
    with pytest.raises(HubUnreachable, match=r"ModelScope \(http://127.* did not answer"):
        unanswered.snapshot(REPO, kind="model")


def test_what_is_in_the_cache_is_used_without_an_answer(hub, unanswered):
    folder = hub.snapshot(REPO, kind="model")
    assert unanswered.snapshot(REPO, kind="model", cached_only=True) == folder


# --- too many requests ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/repo/files", "FilePath=model.safetensors"])
def test_a_hub_that_asks_to_wait_is_asked_again(server, hub, path):
    server.fail_next(429, path=path, retry_after=0)
    assert (hub.snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"
    assert [one.status for one in server.requests].count(429) == 1


@pytest.mark.parametrize("path", ["/repo/files", "FilePath=model.safetensors"])
def test_a_hub_that_keeps_asking_to_wait_is_given_up(server, hub, path):
    server.fail_next(429, times=9, path=path, retry_after=0)
    with pytest.raises(HubUnreachable, match=r"limits requests \(429\) for model 'tiny/model'"):
        hub.snapshot(REPO, kind="model")


# --- who may read ---------------------------------------------------------------------------------


def test_an_unknown_repository_is_no_connection_problem(hub):
    with pytest.raises(UnknownName, match="modelscope has no model 'nobody/nothing'"):
        hub.snapshot("nobody/nothing", kind="model")


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_a_gated_repository_says_where_to_accept_its_terms(server, hub, kind):
    server.gate(REPO)
    page = f"{server.address}/{kind}s/{REPO}"
    with pytest.raises(UnknownName, match=f"{kind} '{REPO}' .* accept its terms at {page}, .*MODELSCOPE_API_TOKEN"):
        hub.snapshot(REPO, kind=kind)


def test_a_token_without_access_to_a_gated_repository_says_where_to_ask(server, with_token):
    server.gate(REPO)
    with pytest.raises(UnknownName, match=f"'{REPO}' .* no access: ask for it at {server.address}/models/{REPO}"):
        with_token(STRANGER).snapshot(REPO, kind="model")
    assert any(one.authorized for one in server.requests)


def test_a_single_file_that_is_refused_says_the_same(server, hub):
    server.fail_next(403, path="FilePath=model.safetensors")
    with pytest.raises(UnknownName, match=f"'{REPO}' .* no access: ask for it at {server.address}/models/{REPO}"):
        hub.snapshot(REPO, kind="model")


def test_a_token_with_access_opens_a_gated_repository(server, with_token):
    server.gate(REPO)
    assert (with_token(READER).snapshot(REPO, kind="model") / "model.safetensors").read_bytes() == b"weights"


def test_a_private_repository_is_there_for_its_readers_only(server, hub, with_token):
    server.hide(REPO)
    with pytest.raises(UnknownName, match="has no model"):
        hub.snapshot(REPO, kind="model")
    assert "config.json" in files_of(with_token(READER).snapshot(REPO, kind="model"))


def test_a_token_that_is_rejected_is_named_as_the_reason(with_token, capfd):
    with pytest.raises(UnknownName, match="rejected your token at model 'tiny/model': set MODELSCOPE") as caught:
        with_token("ms-expired-secret").snapshot(REPO, kind="model")
    assert "secret" not in str(caught.value) + "".join(capfd.readouterr())


# --- uploads --------------------------------------------------------------------------------------


def test_what_was_uploaded_can_be_downloaded(server, with_token, folder):
    hub, before = with_token(WRITER), files_of(folder)
    assert hub.upload(folder, "ada/adapter", message="First try") == f"{server.address}/models/ada/adapter"
    assert files_of(folder) == before
    assert files_of(server.place("ada/adapter")) == before
    assert files_of(hub.snapshot("ada/adapter", kind="model")) == before
    assert [(one.repo, one.message.partition(" (")[0]) for one in server.commits] == [("ada/adapter", "First try")]
    assert not server.is_private("ada/adapter")


def test_a_second_upload_sends_what_changed(server, with_token, folder):
    with_token(WRITER).upload(folder, "ada/adapter")
    (folder / "adapter_config.json").write_text('{"r": 8}')
    server.requests.clear()
    with_token(WRITER).upload(folder, "ada/adapter")
    assert files_of(server.place("ada/adapter")) == files_of(folder)
    assert [one for one in server.requests if one.method == "PUT"] == []


def test_a_private_upload_is_for_its_readers_only(server, hub, with_token, folder):
    with_token(WRITER).upload(folder, "ada/secret", private=True)
    assert server.is_private("ada/secret")
    with pytest.raises(UnknownName):
        hub.snapshot("ada/secret", kind="model")


def test_a_private_upload_does_not_go_into_a_public_repository(server, with_token, folder):
    with pytest.raises(UsageError, match="tiny/model exists and is public"):
        with_token(WRITER).upload(folder, REPO, private=True)
    assert server.commits == []


def test_the_token_is_not_shown_or_written(home, with_token, folder, capfd):
    with_token(WRITER).upload(folder, "ada/adapter")
    assert WRITER not in "".join(capfd.readouterr())
    assert not [path for path in home.rglob("*") if path.is_file() and WRITER.encode() in path.read_bytes()]


def test_an_upload_without_a_token_says_which_variable_to_set(server, hub, folder):
    with pytest.raises(UsageError, match=r"needs a token\n.*export MODELSCOPE_API_TOKEN="):
        hub.upload(folder, "ada/adapter")
    assert server.requests == []


def test_an_upload_with_a_token_that_is_rejected(with_token, folder):
    with pytest.raises(UsageError, match=r"rejected your token\n.*MODELSCOPE_API_TOKEN") as caught:
        with_token("ms-expired-secret").upload(folder, "ada/adapter")
    assert "secret" not in str(caught.value)


def test_an_upload_with_a_token_that_may_only_read(with_token, folder):
    with pytest.raises(UsageError, match="may not write to 'ada/adapter'"):
        with_token(STRANGER).upload(folder, "ada/adapter")


def test_an_upload_to_what_is_no_id(with_token, folder):
    with pytest.raises(UsageError, match=r"'adapter'.*owner/name"):
        with_token(WRITER).upload(folder, "adapter")


def test_a_token_says_whose_it_is(server, hub, home):
    assert hub.account(token=WRITER) == "llmtune"
    assert [one.path for one in server.requests] == ["/", "/openapi/v1/users/me"]
    assert not [path for path in home.rglob("*") if path.is_file() and WRITER.encode() in path.read_bytes()]


def test_a_token_that_is_given_goes_before_that_of_the_environment(server, with_token, home, folder):
    with_token("ms-expired-secret").upload(folder, "ada/adapter", token=WRITER)
    assert files_of(server.place("ada/adapter")) == files_of(folder)
    assert not [path for path in home.rglob("*") if path.is_file() and WRITER.encode() in path.read_bytes()]


@pytest.mark.parametrize(("token", "problem"), [(None, "needs a token"), ("ms-expired-secret", "rejected your token")])
def test_a_token_that_cannot_upload_is_refused(hub, token, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        hub.account(token=token)
    assert "MODELSCOPE_API_TOKEN" in caught.value.fix
    assert "secret" not in str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_hub_that_does_not_say_whose_the_token_is(unanswered):
    with pytest.raises(HubUnreachable, match=r"ModelScope \(http://127.* did not answer"):
        unanswered.account()


def test_a_repository_is_created_once(server, hub):
    for _ in range(2):
        assert hub.create("ada/new", private=True, token=WRITER) == f"{server.address}/models/ada/new"
    assert server.is_private("ada/new")
    with pytest.raises(UsageError, match="tiny/model exists and is public"):
        hub.create(REPO, private=True, token=WRITER)
    with pytest.raises(UsageError, match="may not write to 'ada/other'"):
        hub.create("ada/other", token=STRANGER)


def test_an_upload_to_a_hub_that_asks_to_wait(server, with_token, folder):
    server.fail_next(429, path="/commit/", retry_after=0)
    with_token(WRITER).upload(folder, "ada/adapter")
    assert files_of(server.place("ada/adapter")) == files_of(folder)


def test_an_upload_that_the_hub_breaks_off(server, with_token, folder):
    server.fail_next(400, times=99, path="/commit/")
    with pytest.raises(HubUnreachable, match=r"the upload to 'ada/adapter' .* failed"):
        with_token(WRITER).upload(folder, "ada/adapter")
    assert server.commits == []


@pytest.mark.usefixtures("server")
def test_an_upload_to_an_endpoint_that_does_not_answer(unanswered, folder):
    with pytest.raises(HubUnreachable, match=r"ModelScope \(http://127.* did not answer"):
        unanswered.upload(folder, "ada/adapter")


def test_a_dataset_uploaded_with_the_sdk_can_be_downloaded(server, hub, home, folder):
    code = """
import sys
from modelscope_hub import HubApi
api = HubApi()
api.create_repo("ada/rows", "dataset")
api.upload_folder("ada/rows", "dataset", sys.argv[1], use_cache=False)
"""
    environment = {**os.environ, **server.environment(home), "MODELSCOPE_API_TOKEN": WRITER}
    subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True)
    assert files_of(hub.snapshot("ada/rows", kind="dataset")) == files_of(folder)
