import dataclasses

import pytest

from llmtune.template.chat_format import ChatFormat
from llmtune.template.jinja import same_ids


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"default_system": "Be kind."},
        {"default_system": 'Quotes " and \\ and {{ braces %}'},
        {"default_system": "Ein Gruß, 你好, 😀"},
        {"prompt": ["[{{ROUND1}}] {{QUERY}}\n"], "chat_sep": ["\n"]},
        {"suffix": [["eos_token_id"]], "chat_sep": [["eos_token_id"], "\n"]},
        {"prefix": ["<|endoftext|>"], "system_prefix": ["<|endoftext|>{{SYSTEM}}\n"]},
        {"prefix": ["{{SYSTEM}}\n"], "system_prefix": None},
        {"chat_sep": None},
        {"system_prefix": None, "prefix": []},
    ],
    ids=str,
)
def test_the_jinja_form_of_a_format_gives_its_ids(tokenizer, chatml, parts):
    assert same_ids(ChatFormat(chatml(**parts), tokenizer), tokenizer)


@pytest.mark.parametrize(
    "other", [{"prompt": ["Q: {{QUERY}}\nA: "]}, {"suffix": ["<|endoftext|>"]}, {"default_system": "Other"}], ids=str
)
def test_a_jinja_form_that_differs_is_found(tokenizer, chatml, other):
    class Differing(ChatFormat):
        def jinja(self):
            return ChatFormat(dataclasses.replace(self.spec, **other), self.tokenizer).jinja()

    assert not same_ids(Differing(chatml(), tokenizer), tokenizer)


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_jinja_form_renders_the_prompt_of_inference(tokenizer, chatml, system):
    template = ChatFormat(chatml(default_system="D"), tokenizer)
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "user", "content": "2"},
    ]
    row = {"messages": turns} | ({"system": system} if system else {})
    given = [{"role": "system", "content": system}, *turns] if system else turns
    text = tokenizer.apply_chat_template(
        given, chat_template=template.jinja(), tokenize=False, add_generation_prompt=True
    )
    assert text == tokenizer.decode(template.encode_prompt(row))
