"""--push_to_hub: what reaches a hub, when, and what happens when it cannot. The hubs' own SDKs talk to a hub here."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import Llmtune, without

from llmtune.errors import HubUnreachable, UploadFailed, UsageError
from llmtune.testing import HubServer
from llmtune.train import checkpoint
from llmtune.train.hub_calls import HubCalls
from llmtune.train.publish import LAST, Destination, Publisher, Strategy

TOKEN, READER = "a-token-that-may-write", "a-token-that-may-read"
HUBS = ("modelscope", "huggingface")
VARIABLES = {"modelscope": "MODELSCOPE_API_TOKEN", "huggingface": "HF_TOKEN"}
ONE_TRY = {  # ModelScope's SDK tries for minutes
    "MODELSCOPE_API_MAX_RETRIES": "1",
    "MODELSCOPE_UPLOAD_COMMIT_MAX_ATTEMPTS": "1",
    "MODELSCOPE_UPLOAD_FAILED_FILE_MAX_RETRY_ROUNDS": "1",
    "MODELSCOPE_UPLOAD_RECOVERY_ENABLED": "0",
}
STRATEGY = ("--push_hub_strategy",)
STATE = {"optimizer.pt", "trainer_state.json"}
SERVED = {"adapter_model.safetensors", "adapter_config.json", "sft_args.json", checkpoint.MARK}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that the processes of uploads talk to."""
    with HubServer(tmp_path / "hub") as running:
        running.add_token(TOKEN, write=True)
        running.add_token(READER)
        home = tmp_path / "home"
        home.mkdir()
        for name, value in {**running.environment(home), **ONE_TRY, "HOME": str(home)}.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def save(run_folder: Path) -> Callable[[int], Path]:
    """Write the checkpoint of a step."""

    def save(step: int) -> Path:
        files = {
            "adapter_model.safetensors": f"weights of step {step}" * 100,
            "adapter_config.json": json.dumps({"base_model_name_or_path": str(run_folder)}),
            "sft_args.json": json.dumps({"output_dir": str(run_folder), "step": step}),
            "optimizer.pt": f"moments of step {step}",
            "trainer_state.json": "{}",
        }
        final = run_folder / f"checkpoint-{step}"
        with checkpoint.writing(final) as staged:
            for name, text in files.items():
                (staged / name).write_text(text)
        return final

    return save


Make = Callable[..., Publisher]


@pytest.fixture
def publisher(run_folder: Path) -> Iterator[Make]:
    made = []

    def make(strategy: Strategy, hub: str = "huggingface", token: str = TOKEN) -> Publisher:
        run_folder.mkdir(exist_ok=True)
        to = Destination(calls=HubCalls(hub=hub, token=token), repo="llmtune/mine", private=False)
        page = {"card": lambda path: f"# {path.name}\n", "base": "owner/base"}
        made.append(Publisher(to, strategy, run_folder, **page, say=print))
        return made[-1]

    yield make
    for one in made:
        one.close()


def settled(publisher: Publisher) -> None:
    """Wait until nothing is under way."""
    while (thread := publisher._thread) is not None:
        thread.join(0.1)


def held(found: HubServer, path: str) -> Callable[[], bool]:
    """Return a question: whether a request for `path` has come after this call and waits."""
    seen = len(found.requests)
    return lambda: any(path in one.path for one in found.requests[seen:])


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def weights(server: HubServer, folder: str = "") -> str:
    return (server.place("llmtune/mine") / folder / "adapter_model.safetensors").read_text()[: len("weights of step 1")]


def steps(server: HubServer) -> list[str]:
    return [commit.message.partition(" (")[0] for commit in server.commits]


# --- the strategies -------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("strategy", "uploaded", "top", "folders"),
    [
        ("end", ["step 1"], 1, {}),
        ("push_best", ["step 1"], 1, {}),
        ("push_last", ["step 1", "step 2"], 2, {}),
        ("checkpoint", ["step 1", "step 2"], 2, {LAST: 2}),
        ("all_checkpoints", ["step 1", "step 2"], 2, {"checkpoint-1": 1, "checkpoint-2": 2}),
    ],
)
def test_a_strategy_leaves_on_the_hub_what_it_promises(
    server: HubServer,
    publisher: Make,
    save: Callable[[int], Path],
    run_folder: Path,
    hub: str,
    strategy: Strategy,
    uploaded: list[str],
    top: int,
    folders: dict[str, int],
) -> None:
    one = publisher(strategy, hub)
    best = save(1)
    one.checkpoint_saved(best, True)
    settled(one)
    assert steps(server) == ([] if strategy == "end" else ["step 1"])
    last = save(2)
    one.checkpoint_saved(last, False)
    one.finish(best, last)
    assert steps(server) == uploaded
    place = server.place("llmtune/mine")
    assert {path.name for path in place.iterdir() if path.is_file()} == {*SERVED, "README.md"}
    assert (weights(server), (place / "README.md").read_text()) == (f"weights of step {top}", f"# checkpoint-{top}\n")
    assert checkpoint.problem(place) == ""
    assert {path.name for path in place.iterdir() if path.is_dir()} == set(folders)
    for name, step in folders.items():
        assert checkpoint.problem(place / name) == ""
        assert set(files(place / name)) == {*SERVED, *STATE}
        assert weights(server, name) == f"weights of step {step}"
    assert [text for text in files(place).values() if str(run_folder) in text] == []
    assert [path.name for path in sorted(run_folder.iterdir())] == ["checkpoint-1", "checkpoint-2"]


@pytest.mark.parametrize(("strategy", "uploaded"), [("push_last", [1, 3]), ("all_checkpoints", [1, 2, 3])])
def test_where_uploads_are_slow_the_newest_is_next(
    server: HubServer, publisher: Make, save: Callable[[int], Path], strategy: Strategy, uploaded: list[int]
) -> None:
    one, release = publisher(strategy), server.hold_next(path="/commit/")
    one.checkpoint_saved(save(1), True)
    started = time.monotonic()
    one.checkpoint_saved(save(2), True)
    one.checkpoint_saved(last := save(3), True)
    assert time.monotonic() - started < 1  # nobody waits for the hub
    release.set()
    one.finish(last, last)
    assert steps(server) == [f"step {step}" for step in uploaded]
    assert weights(server) == "weights of step 3"


def test_a_checkpoint_that_is_deleted_meanwhile_arrives_whole(
    server: HubServer, publisher: Make, save: Callable[[int], Path], run_folder: Path
) -> None:
    one, release, waits = publisher("all_checkpoints"), server.hold_next(path="/lfs/"), held(server, "/preupload/")
    for step in (1, 2):
        one.checkpoint_saved(save(step), True)
    while not waits():
        time.sleep(0.01)
    checkpoint.prune(run_folder, 1, None)
    checkpoint.remove(run_folder / "checkpoint-2")
    release.set()
    one.finish(None, None)
    for step in (1, 2):
        assert checkpoint.problem(server.place("llmtune/mine") / f"checkpoint-{step}") == ""
        assert weights(server, f"checkpoint-{step}") == f"weights of step {step}"


def test_all_checkpoints_of_a_resumed_run_come_too_and_the_newest_stays_on_top(
    server: HubServer, publisher: Make, save: Callable[[int], Path]
) -> None:
    one, _ = publisher("all_checkpoints"), save(1)
    one.checkpoint_saved(last := save(2), True)
    one.finish(last, last)
    assert steps(server) == ["step 2", "step 1"]
    assert (weights(server), weights(server, "checkpoint-1")) == ("weights of step 2", "weights of step 1")


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("hub", HUBS)
def test_a_failure_is_a_warning_and_the_next_checkpoint_a_new_try(
    server: HubServer, publisher: Make, save: Callable[[int], Path], capfd: pytest.CaptureFixture[str], hub: str
) -> None:
    one = publisher("push_best", hub)
    server.fail_next(500, path="/commit/", times=99)
    one.checkpoint_saved(best := save(1), True)
    settled(one)
    server.fail_no_more()
    assert steps(server) == []
    shown = capfd.readouterr().err
    assert "warning: checkpoint-1 was not uploaded: the upload to 'llmtune/mine'" in shown
    assert "tried again with the next checkpoint" in shown
    one.checkpoint_saved(save(2), False)  # is not the best: the first is sent again
    settled(one)
    assert steps(server) == ["step 1"]
    server.requests.clear()
    one.finish(best, best)
    assert server.requests == []


def test_a_hub_that_is_down_at_the_end_is_an_error_with_the_command_for_later(
    server: HubServer, publisher: Make, save: Callable[[int], Path], llmtune: Llmtune, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as down, socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        down.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        one = publisher("end")
        with pytest.raises(UploadFailed) as caught:
            one.finish(best := save(1), None)
        one.close()
    assert "checkpoint-1 was not uploaded to llmtune/mine: the upload to 'llmtune/mine'" in caught.value.problem
    assert str(best) in caught.value.fix
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    _, name, *words = shlex.split(caught.value.fix.rpartition("upload it with: ")[2])
    result = llmtune(name, *words, "--model_type", "smollm2-135m-instruct", "--commit_message", "later")
    assert result.code == 0, result.err
    assert f"uploaded {best} to {server.address}/llmtune/mine" in result.out
    assert (steps(server), weights(server)) == (["later"], "weights of step 1")
    assert [path.name for path in best.parent.iterdir()] == ["checkpoint-1"]


@pytest.mark.parametrize("hub", HUBS)
def test_a_token_that_is_revoked_meanwhile_is_in_no_message(
    server: HubServer, publisher: Make, save: Callable[[int], Path], capfd: pytest.CaptureFixture[str], hub: str
) -> None:
    one = publisher("push_last", hub)
    server.revoke_token(TOKEN)
    one.checkpoint_saved(last := save(1), True)
    with pytest.raises(UploadFailed, match="rejected your token") as caught:
        one.finish(last, last)
    assert TOKEN not in str(caught.value) + "".join(capfd.readouterr()) + repr(one.destination)


@pytest.mark.parametrize("token", [TOKEN, ""])
def test_a_message_of_the_hub_that_repeats_the_token_is_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """The process of a hub gets the token; whatever it says of it stays out of errors."""
    package = tmp_path / "a_leaky_hub"
    package.mkdir()
    (package / "plugin.py").write_text(LEAKY)
    (package / "llmtune-plugin.toml").write_text('api = 1\nmodule = "a_leaky_hub.plugin"\n[hub.leaky]\n')
    monkeypatch.setenv("HF_TOKEN", "" if token else TOKEN)
    calls = HubCalls(hub="leaky", token=token or None, local=(str(package),))
    with pytest.raises(UsageError) as caught:
        calls.open("mine", private=False, create=True)
    assert str(caught.value) == "<token> is no good\n  try another than <token>"
    with pytest.raises(HubUnreachable, match="ended with code 1: KeyError: '<token>'") as crashed:
        calls.upload(tmp_path, "mine", private=False, message="")
    assert TOKEN not in str(crashed.value)


LEAKY = """
import os
from llmtune.api import Hub, UsageError, hookimpl

class Leaky(Hub):
    def snapshot(self, repo, **how): ...
    def account(self, *, token=None):
        token = token or os.environ["HF_TOKEN"]
        raise UsageError(f"{token} is no good", fix=f"try another than {token}")
    def upload(self, folder, repo, *, token=None, **how):
        raise KeyError(token or os.environ["HF_TOKEN"])

@hookimpl
def llmtune_create_hub(name, options, run):
    return Leaky()
"""


def test_a_run_that_stops_does_not_wait_for_the_hub(
    server: HubServer,
    publisher: Make,
    save: Callable[[int], Path],
    run_folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    one, release, waits = publisher("push_last"), server.hold_next(path="/commit/"), held(server, "/preupload/")
    one.checkpoint_saved(save(1), True)
    while not waits():
        time.sleep(0.01)
    started = time.monotonic()
    one.close()
    assert time.monotonic() - started < 5
    release.set()
    shown = capfd.readouterr().err
    assert "warning: the upload to llmtune/mine was stopped; later: llmtune export --ckpt_dir" in shown
    assert "tried again" not in shown
    assert [path.name for path in run_folder.iterdir()] == ["checkpoint-1"]


# --- before training ------------------------------------------------------------------------------


@pytest.fixture
def push_flags(tiny_flags: list[str]) -> list[str]:
    return [*tiny_flags, "--push_to_hub", "true", "--hub_model_id", "mine", "--save_steps", "1", "--eval_steps", "1"]


def refused(result: object, tmp_path: Path) -> str:
    """Check that nothing was read or written, and return the error."""
    code, out, err = result.code, result.out, result.err  # type: ignore[attr-defined]
    assert code in (1, 2), out + err
    assert "rows:" not in out
    assert not (tmp_path / "output").exists()
    assert "a-token" not in out + err
    return str(err)


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize(
    ("token", "problem"), [(None, "needs a token"), ("a-token-of-old", "rejected your token")], ids=["none", "refused"]
)
def test_a_token_that_is_no_good_stops_the_run_before_anything_is_read(
    server: HubServer, llmtune: Llmtune, push_flags: list[str], tmp_path: Path, hub: str, token: str, problem: str
) -> None:
    given = ("--hub_token", token) if token else ()
    shown = refused(llmtune("sft", *push_flags, "--hub", hub, *given), tmp_path)
    assert problem in shown
    assert VARIABLES[hub] in shown
    assert not server.folder.exists()


def test_a_token_that_may_only_read_is_refused(
    server: HubServer, llmtune: Llmtune, push_flags: list[str], tmp_path: Path
) -> None:
    words = (*push_flags, "--hub_token", READER)
    assert "may only read" in refused(llmtune("sft", *words, "--use_hf", "true"), tmp_path)
    assert "may not write to 'llmtune/mine'" in refused(llmtune("sft", *words), tmp_path)  # ModelScope, which says less


def test_a_private_repository_that_exists_and_is_public_is_refused(
    server: HubServer, llmtune: Llmtune, push_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    server.add("llmtune/mine", {"a": b""})
    shown = refused(llmtune("sft", *push_flags, "--hub_private_repo", "true"), tmp_path)
    assert "llmtune/mine exists and is public" in shown


def test_a_hub_that_is_read_only_and_checkpoints_that_cannot_be_resumed_are_refused(
    server: HubServer, llmtune: Llmtune, push_flags: list[str], tmp_path: Path
) -> None:
    assert "is read-only" in refused(llmtune("sft", *push_flags, "--hub", "pypi"), tmp_path)
    full = ("--sft_type", "full", "--push_hub_strategy", "checkpoint")
    assert "--save_only_model is true for this run" in refused(llmtune("sft", *push_flags, *full), tmp_path)


def test_a_dry_run_asks_the_hub_and_creates_nothing(
    server: HubServer, llmtune: Llmtune, push_flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = llmtune("sft", *push_flags, "--use_hf", "true", "--dry_run")
    assert result.code == 0, result.err
    assert "uploads to: huggingface llmtune/mine (push_best)" in result.out
    assert not server.folder.exists()


# --- whole runs -----------------------------------------------------------------------------------


def holding(token: str, folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]


def test_a_run_uploads_a_checkpoint_that_answers_and_can_be_resumed_from_and_shows_no_token(
    server: HubServer,
    llmtune: Llmtune,
    push_flags: list[str],
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ModelScope, where --hub is not given; every hook call is traced."""
    flags = without(push_flags, "--hub_model_id")
    with monkeypatch.context() as traced:
        traced.setenv("LLMTUNE_PLUGIN_TRACE", "1")
        result = llmtune("sft", *flags, "--hub_token", TOKEN, *STRATEGY, "checkpoint")
    assert result.code == 0, result.err
    assert "hub_private_repo=False" in result.err  # the trace shows the configuration
    repo = "llmtune/smollm2-135m-instruct-lora"
    assert f"uploaded checkpoint-2 to {server.address}/models/{repo}" in result.out
    assert TOKEN not in result.out + result.err
    assert holding(TOKEN, tmp_path) == []
    place = server.place(repo)
    assert holding(str(tmp_path), place) == []
    page = (place / "README.md").read_text()
    expected = ("| base model | smollm2-135m-instruct |", "| datasets | self-cognition#20 |", "| lora_rank | 8 |")
    assert [line for line in (*expected, "| max_steps | 2 |", "eval_loss") if line not in page] == []

    downloaded = shutil.copytree(place, tmp_path / "downloaded")
    (tmp_path / "rows.jsonl").write_text('{"query": "hi", "response": "ho"}\n')
    answered = llmtune(
        *("infer", "--ckpt_dir", downloaded, "--model_type", "smollm2-135m-instruct", "--model_id_or_path", tiny),
        *("--eval_human", "false", "--val_dataset", tmp_path / "rows.jsonl", "--max_new_tokens", "2"),
    )
    assert answered.code == 0, answered.err
    local = without(push_flags, "--push_to_hub", "--hub_model_id", "--max_steps")
    resumed = llmtune("sft", *local, "--max_steps", "3", "--resume_from_checkpoint", downloaded / LAST)
    assert resumed.code == 0, resumed.err
    assert "step 3: eval_loss" in resumed.out
    assert "step 2: eval_loss" not in resumed.out
    assert not list(downloaded.glob("checkpoint-*"))


def test_a_finished_run_that_could_not_upload_ends_with_an_error_and_keeps_its_checkpoints(
    server: HubServer, llmtune: Llmtune, push_flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.fail_next(500, times=99, path="/commit/")
    result = llmtune("sft", *push_flags, "--use_hf", "true")
    assert result.code == 1
    assert "best checkpoint: " in result.out
    assert "warning: checkpoint-1 was not uploaded" in result.err
    error = result.err.rpartition("error: ")[2]
    (folder,) = (tmp_path / "output").glob("*/v0-*")
    assert f"llmtune export --ckpt_dir {folder}/checkpoint-" in error
    assert "--push_to_hub true --hub_model_id llmtune/mine --hub huggingface" in error
    assert len(checkpoint.complete_checkpoints(folder)) == 2
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["error"].partition(":")[0]) == ("failed", "UploadFailed")
    assert TOKEN not in result.out + result.err
    assert holding(TOKEN, tmp_path) == []


def test_sigterm_during_an_upload_saves_and_ends(server: HubServer, push_flags: list[str], tmp_path: Path) -> None:
    release = server.hold_next(path="/commit/")
    waits = held(server, "/preupload/")
    flags = without(push_flags, "--max_steps", "--save_steps", "--eval_steps")
    endless = [*flags, "--max_steps", "9999", "--save_steps", "20"]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "llmtune",
            "sft",
            *endless,
            "--use_hf",
            "true",
            "--hub_token",
            TOKEN,
            *STRATEGY,
            "push_last",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    while not waits() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate()
    release.set()
    watchdog.cancel()
    assert process.returncode == 143, shown
    assert "the upload to llmtune/mine was stopped; later: llmtune export" in shown
    assert not list((tmp_path / "output").rglob(".unfinished-*"))
