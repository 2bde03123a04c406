import subprocess

import pytest

from llmtune.cli.completion import candidates
from llmtune.cli.main import main


@pytest.fixture
def catalogue(site):
    site.install(
        "acme",
        '[tuner.acme]\noptions = "llmtune_plugin_acme.options:Options"\n[model.m]\ntemplate = "t"\n'
        '[model.m.ids]\n"m-1b" = { hf = "o/m" }\n',
        files={"options.py": "class Options(Section):\n    acme_mode: Literal['fast', 'small'] = Field('fast')\n"},
    )
    return site.catalogue()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["inf"], ["infer"]),
        (["sft", "--acme"], ["--acme_mode"]),
        (["sft", "--acme_mode", ""], ["fast", "small"]),
        (["sft", "--dtype", "b"], ["bf16"]),
        (["sft", "--packing", "t"], ["true"]),
        (["sft", "--model_type", "m"], ["m-1b"]),
        (["infer", "--ckpt-dir", "x", "--dtype", "fp1"], ["fp16"]),
        (["sft", "--output_dir", "x"], []),
        (["sft", "run"], []),
        (["models", "--js"], []),
        (["nothing", "--x"], []),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_words_that_may_follow(catalogue, words, found):
    assert candidates(words, catalogue) == found


def test_without_a_word_all_commands_are_offered(catalogue):
    assert {"sft", "infer", "completion"} <= set(candidates([], catalogue))


def test_words_are_printed_one_per_line(capsys):
    assert main(["completion", "words", "--", "sft", "--lora_a"]) == 0
    assert capsys.readouterr().out == "--lora_alpha\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "llmtune completion words" in capsys.readouterr().out


def test_the_bash_script_completes(capsys):
    main(["completion", "bash"])
    script = capsys.readouterr().out
    asked = 'COMP_WORDS=(llmtune sft --lora_a); COMP_CWORD=2; _llmtune_complete; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True, check=True)
    assert done.stdout == "--lora_alpha\n"


def test_an_unknown_shell_is_wrong_usage(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
