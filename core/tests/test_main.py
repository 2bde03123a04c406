import json

import pytest

from llmtune import __version__
from llmtune.cli.main import main
from llmtune.plugins.catalogue import discover

HELLO = """
from llmtune import register_command
def hello(arguments):
    print("hello", *arguments)
register_command("hello", hello, help="Say hello")
"""
ERRORS = """
from llmtune import register_command
from llmtune.errors import Interrupted, LlmtuneError
def run(arguments):
    BODY
register_command("hello", run, help="Say hello")
"""


@pytest.fixture
def llmtune(capsys):
    """Run a command line in this process and return (exit code, printed, errors)."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def file(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_the_version_is_printed(llmtune):
    assert llmtune("--version") == (0, f"llmtune {__version__}\n", "")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command_with_its_sentence(llmtune, arguments):
    code, out, _ = llmtune(*arguments)
    commands = discover().entries("command")
    assert [entry.name for entry in commands if f"  {entry.name} " not in out] == []
    assert [entry.name for entry in commands if entry.facts["help"] not in out] == []
    assert code == 0


def test_help_names_the_distribution_of_a_plugins_command(llmtune, file):
    _, out, _ = llmtune("--help", "--custom_register_path", file(HELLO))
    assert "Say hello (local file)" in out


@pytest.mark.parametrize("command", ["sft", "infer", "inspect", "models", "plugins", "doctor", "config-schema"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(llmtune, command, flag):
    code, out, _ = llmtune(command, flag)
    assert (code, f"llmtune {command}" in out) == (0, True)


def test_help_of_a_command_shows_the_flags_of_the_plugins(llmtune):
    _, out, _ = llmtune("sft", "--help")
    assert [flag for flag in ("--learning_rate", "--dataset", "--lora_rank") if flag not in out] == []


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["modles"], ["unknown command 'modles'", "llmtune models"]),
        (["zzzzz"], ["unknown command 'zzzzz'", "llmtune --help"]),
        (["--verbose"], ["unknown option --verbose"]),
        (["-p"], ["-p takes no:NAME"]),
        (["-p", "lora", "models"], ["-p takes no:NAME, found 'lora'"]),
        (["sft", "--lora_rnak", "8"], ["unknown option --lora_rnak", "--lora_rank"]),
        (["sft", "run.txt"], ["unexpected argument 'run.txt'", "--help"]),
        (["sft", "missing.yaml"], ["missing.yaml", "No such file"]),
        (["sft", "--batch_size", "0", "--seed", "x"], ["--batch_size", "--seed"]),
        (["sft"], ["no model was chosen", "--model_type"]),
        (["models", "--no-such-option"], ["--no-such-option"]),
        (["config-schema", "stf"], ["'stf'", "sft"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_usage_is_explained_with_exit_code_2(llmtune, arguments, shown):
    code, _, err = llmtune(*arguments)
    assert (code, [text for text in shown if text not in err]) == (2, [])


@pytest.mark.parametrize(("text", "line"), [("seed: 1\nlora_rnak: 8\n", 2), ('{"seed": 1,\n\n"lora_rnak": 8}', 3)])
def test_a_misspelt_option_of_a_run_file_is_named_with_its_line(llmtune, file, text, line):
    path = file(text, "run.yaml")
    code, _, err = llmtune("sft", path)
    assert (code, f"{path}:{line}" in err, "did you mean lora_rank?" in err) == (2, True, True)


def test_a_run_file_with_an_option_that_yaml_reads_as_true_is_explained(llmtune, file):
    code, _, err = llmtune("sft", file("on: 1\n", "run.yaml"))
    assert (code, "run.yaml:1" in err) == (2, True)


def test_a_flag_wins_over_the_run_file(llmtune, file):
    _, _, err = llmtune("sft", file("batch_size: 0\nseed: x\n", "run.yaml"), "--batch_size", "1")
    assert ("run.yaml:2: seed" in err, "batch_size" in err) == (True, False)


def test_a_plugin_that_is_switched_off_is_gone_for_this_call(llmtune):
    assert "lora" in llmtune("tuners")[1]
    code, out, _ = llmtune("-p", "no:lora", "tuners", "--json")
    assert (code, "lora" in [row["name"] for row in json.loads(out)]) == (0, False)


def test_several_switches_stand_anywhere(llmtune):
    _, out, _ = llmtune("tuners", "-p", "no:lora", "--json", "-p", "no:full")
    assert {row["name"] for row in json.loads(out)} & {"lora", "full"} == set()


@pytest.mark.parametrize("spelling", ["--custom_register_path", "--custom-register-path"])
def test_a_command_of_a_local_file_gets_its_arguments(llmtune, file, spelling):
    assert llmtune(spelling, file(HELLO), "hello")[:2] == (0, "hello\n")


def test_a_command_of_a_local_file_gets_its_words(llmtune, file):
    assert llmtune("--custom_register_path", file(HELLO), "hello", "you")[:2] == (0, "hello you\n")


def test_a_typer_app_of_a_local_file_is_a_command(llmtune, file):
    text = (
        "import typer\nfrom llmtune import register_command\napp = typer.Typer()\n"
        "@app.command()\ndef hello(name: str):\n    print('hello', name)\n"
        "register_command('hello', app, help='Say hello')\n"
    )
    assert llmtune("--custom_register_path", file(text), "hello", "you")[:2] == (0, "hello you\n")


@pytest.mark.parametrize(
    ("body", "code", "shown"),
    [
        ("return 0", 0, ""),
        ("return None", 0, ""),
        ("return 3", 3, ""),
        ("raise LlmtuneError('went wrong', fix='do this')", 1, "error: went wrong\n  do this"),
        ("raise Interrupted('stopped after step 3')", 130, "stopped after step 3"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
        ("raise SystemExit(4)", 4, ""),
        ("raise SystemExit('the reason')", 1, "the reason"),
    ],
)
def test_the_exit_code_tells_how_a_command_ended(llmtune, file, body, code, shown):
    path = file(ERRORS.replace("BODY", body))
    found, _, err = llmtune("hello", f"--custom_register_path={path}")
    assert (found, shown in err) == (code, True)


def test_an_error_has_no_traceback_unless_the_trace_is_on(llmtune, file, monkeypatch):
    path = file(ERRORS.replace("BODY", "raise LlmtuneError('went wrong')"))
    assert "Traceback" not in llmtune("hello", f"--custom_register_path={path}")[2]
    monkeypatch.setenv("LLMTUNE_PLUGIN_TRACE", "1")
    assert "Traceback" in llmtune("hello", f"--custom_register_path={path}")[2]


def test_a_local_file_that_fails_is_explained(llmtune, file):
    code, _, err = llmtune("models", "--custom_register_path", file("1 / 0\n"))
    assert (code, "mine.py:1 failed: ZeroDivisionError" in err) == (1, True)


def test_names_of_a_local_file_are_listed(llmtune, file):
    text = "from llmtune import register_model\nregister_model('my-model', '/weights')\n"
    code, out, _ = llmtune("models", "my-", "--json", "--custom_register_path", file(text))
    (row,) = json.loads(out)
    assert (code, row["name"], row["plugin"], row["facts"]["ms"]) == (0, "my-model", "local-mine", "/weights")


def test_a_plugin_whose_command_fails_to_import_is_named(llmtune, site):
    manifest = '[command.boom]\nrun = "llmtune_plugin_boom.plugin:app"\nhelp = "h"\n'
    site.install("boom", manifest, code="import no_such_module_anywhere")
    code, _, err = llmtune("boom")
    assert code == 1
    assert "boom (llmtune-plugin-boom 1.0)" in err
    assert "llmtune plugins doctor boom" in err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plugins"], ["models"]])
def test_a_broken_plugin_stops_no_command_that_does_not_need_it(llmtune, site, arguments):
    site.install("broken", "[wrong")
    site.install("failing", 'module = "llmtune_plugin_failing.plugin"\n[tuner.t]\n', code="raise SystemExit(1)")
    assert llmtune(*arguments)[0] == 0


def test_plugins_shows_what_is_broken_and_why(llmtune, site):
    site.install("broken", "[wrong")
    code, out, _ = llmtune("plugins")
    assert (code, "not valid TOML" in out, "llmtune plugins doctor" in out) == (0, True, True)


def test_the_doctor_of_one_plugin_ends_with_1_when_it_is_broken_and_is_remembered(llmtune, site):
    site.install("failing", 'module = "llmtune_plugin_failing.plugin"\n', code="import no_such_module_anywhere\n")
    code, out, _ = llmtune("plugins", "doctor", "failing")
    assert (code, "no_such_module_anywhere" in out, "0 of 1 plugins are fine; not: failing" in out) == (1, True, True)
    states = {row["name"]: row["state"] for row in json.loads(llmtune("plugins", "--json")[1])}
    assert states["failing"] == "broken"


def test_the_doctor_of_a_sound_plugin_ends_with_0(llmtune, site):
    site.install("sound", "[tuner.t]\n")
    assert llmtune("plugins", "doctor", "sound")[0] == 0


@pytest.mark.parametrize(("text", "code"), [("", 0), ("[wrong", 1)])
def test_validate_ends_with_1_for_a_plugin_that_is_not_valid(llmtune, tmp_path, text, code):
    (tmp_path / "llmtune-plugin.toml").write_text(f"api = 1\n{text}")
    found, out, _ = llmtune("plugins", "validate", tmp_path)
    assert (found, "not valid" in out) == (code, code == 1)


def test_the_schema_of_a_command_is_printed_as_json(llmtune):
    code, out, _ = llmtune("config-schema", "infer")
    assert (code, json.loads(out)["title"]) == (0, "llmtune infer")


def test_a_reader_that_leaves_is_no_error(tmp_path):
    import subprocess
    import sys

    line = f"{sys.executable} -m llmtune config-schema sft | head -c 1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr, "BrokenPipe" in done.stderr) == (0, False, False)
