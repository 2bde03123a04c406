import json

import pytest

from llmtune.config.generation import GenerationSection
from llmtune.errors import CheckpointError
from llmtune.template.chat_format import ChatFormat
from llmtune.testing.tiny import tiny_tokenizer
from llmtune.train.checkpoint_files import CheckpointFiles, read_arguments, read_template


def files(spec, template_class=ChatFormat):
    tokenizer = tiny_tokenizer()
    return CheckpointFiles(
        {"seed": 7, "system": "你好"}, spec, template_class(spec, tokenizer), tokenizer, GenerationSection()
    )


def test_arguments_and_template_are_read_back_as_they_were(tmp_path, chatml):
    spec = chatml(default_system="Be kind.", prefix=[[1, "bos_token_id"]])
    files(spec).write(tmp_path)
    assert read_arguments(tmp_path) == {"seed": 7, "system": "你好"}
    assert read_template(tmp_path) == spec


def test_the_tokenizer_carries_the_template_as_jinja(tmp_path, chatml):
    from transformers import AutoTokenizer

    files(chatml()).write(tmp_path)
    turns = [{"role": "user", "content": "Hi"}]
    text = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("parts", [{"chat_sep": None}, {"system_prefix": None}], ids=str)
def test_a_template_of_single_turns_or_without_system_can_be_stored(tmp_path, chatml, parts):
    files(chatml(**parts)).write(tmp_path)
    assert read_template(tmp_path) == chatml(**parts)


def test_a_template_without_an_exact_jinja_form_stores_none_and_says_so(tmp_path, chatml, capsys):
    class Differing(ChatFormat):
        def jinja(self):
            return "{{ messages[0]['content'] }}"

    files(chatml(), Differing).write(tmp_path)
    assert "chatml" in capsys.readouterr().err
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert not (tmp_path / "chat_template.jinja").exists()


def test_a_checkpoint_of_another_tool_has_no_template(tmp_path):
    assert read_template(tmp_path) is None


@pytest.mark.parametrize("text", [None, "{"])
def test_arguments_that_cannot_be_read_say_what_to_give_instead(tmp_path, text, fails):
    if text is not None:
        (tmp_path / "sft_args.json").write_text(text)
    error = fails(CheckpointError, read_arguments, tmp_path)
    assert ("sft_args.json" in error.problem, "--model_type" in error.fix) == (True, True)
