import pytest

import llmtune
from llmtune.errors import DataError, UsageError

pytestmark = pytest.mark.usefixtures("fresh_process")

# --- templates ------------------------------------------------------------------------------------


@pytest.fixture
def template(tokenizer):
    llmtune.register_template(
        "t", llmtune.Template([], ["Q: {{QUERY}}\nA: "], ["\n"], [["eos_token_id"]], None, ["{{SYSTEM}}\n"], ["stop"])
    )
    return lambda name="t", **keywords: llmtune.get_template(name, tokenizer, **keywords)


EXAMPLE = {"query": "c", "response": "d", "system": "s", "history": [("a", "b")]}


def test_an_example_is_encoded_with_its_targets(template, tokenizer):
    encoded = template().encode(EXAMPLE)
    assert tokenizer.decode(encoded["input_ids"]) == "s\nQ: a\nA: b\nQ: c\nA: d<|im_end|>"
    targets = [label for label in encoded["labels"] if label != -100]
    assert tokenizer.decode(targets) == "bd<|im_end|>"


def test_a_row_with_messages_is_encoded_too(template, tokenizer):
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    assert tokenizer.decode(template().encode(row)["input_ids"]) == "Q: a\nA: b<|im_end|>"


def test_without_a_response_the_prompt_is_encoded(template, tokenizer):
    encoded = template().encode({"query": "a"})
    assert (tokenizer.decode(encoded["input_ids"]), encoded["labels"]) == ("Q: a\nA: ", None)


def test_the_default_system_prompt_is_replaced(template, tokenizer):
    encoded = template(default_system="Be kind.").encode({"query": "a"})
    assert tokenizer.decode(encoded["input_ids"]).startswith("Be kind.\n")


@pytest.mark.parametrize("example", [EXAMPLE, {"query": "a long question"}])
def test_what_is_too_long_is_an_error_or_cut_on_the_left(template, tokenizer, fails, example):
    assert "max" in fails(DataError, template(max_length=4).encode, example).problem
    whole = template().encode(example)["input_ids"]
    assert template(max_length=4, truncation_strategy="truncation_left").encode(example)["input_ids"] == whole[-4:]
    assert template(max_length=-1).encode(example)["input_ids"] == whole


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        ({"response": "b"}, "query"),
        ("hi", "an example must be a mapping, found 'hi'"),
        ({"query": "a", "history": 3}, "history must be pairs of [query, response], found 3"),
        ({"messages": []}, "no usable messages, found []"),
        ({"messages": "hi"}, "no usable messages, found 'hi'"),
        ({"messages": [3]}, "no usable messages, found [3]"),
        ({"messages": [{"role": "user"}]}, "no usable messages, found [{"),
        ({"messages": [{"role": "user", "content": "a"}], "system": 3}, "must be text, found 3"),
    ],
)
def test_an_example_that_cannot_be_used_is_a_data_error(template, fails, example, shown):
    assert shown in fails(DataError, template().encode, example).problem


def test_a_system_prompt_without_a_place_is_left_out_with_one_warning(template, tokenizer, capsys):
    llmtune.register_template("bare", llmtune.Template([], ["{{QUERY}}"], [], [["eos_token_id"]]))
    bare = template("bare")
    for _ in range(2):
        assert (
            tokenizer.decode(bare.encode({"query": "a", "response": "b", "system": "s"})["input_ids"]) == "ab<|im_end|>"
        )
    assert capsys.readouterr().err.splitlines() == [
        "warning: template 'bare' has no place for a system prompt; that of the example is left out"
    ]


def test_a_row_with_a_system_prompt_without_a_place_is_refused(template, fails):
    llmtune.register_template("bare", llmtune.Template([], ["{{QUERY}}"], [], [["eos_token_id"]]))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    error = fails(DataError, template("bare").encode, {"messages": messages, "system": "s"})
    assert "no place for a system prompt" in error.problem


@pytest.mark.parametrize(
    "keywords",
    [
        {"max_length": 0},
        {"max_length": -5},
        {"max_length": "x"},
        {"truncation_strategy": "split"},
        {"default_system": 3},
    ],
)
def test_wrong_limits_are_named(template, fails, keywords):
    assert next(iter(keywords)) in fails(UsageError, template, **keywords).problem


@pytest.mark.parametrize("name", [None, 3])
def test_the_name_of_a_template_must_be_text(template, fails, name):
    error = fails(UsageError, template, name)
    assert (error.problem, error.fix) == (
        f"the template must be a name, found {name}",
        "llmtune templates lists the names",
    )


@pytest.mark.parametrize("missing", [None, "smollm2"])
def test_a_missing_tokenizer_is_named(template, fails, missing):
    error = fails(UsageError, llmtune.get_template, "t", missing)
    assert error.problem == f"get_template needs the tokenizer of the model, found {missing!r}"
    assert "get_model_tokenizer" in error.fix


def test_stop_words_are_the_templates(template):
    assert template().stop_words == ["stop"]


# --- models ---------------------------------------------------------------------------------------


def test_a_registered_model_is_loaded_by_its_function(tmp_path):
    import torch

    @llmtune.register_model("mine", str(tmp_path), ["q_proj"], "chatml")
    def load(model_dir, torch_dtype, model_kwargs, load_model=True, **kwargs):
        return (torch_dtype if load_model else None), (model_dir, model_kwargs, kwargs)

    model, tokenizer = llmtune.get_model_tokenizer("mine", torch.float16, {"device_map": "auto"}, use_flash_attn=True)
    assert model is torch.float16
    assert tokenizer == (str(tmp_path), {"device_map": "auto"}, {"use_flash_attn": True})
    assert llmtune.get_model_tokenizer("mine", load_model=False) == (None, (str(tmp_path), {}, {}))


def test_core_loads_what_has_no_function(tmp_path):
    from transformers import LlamaModel

    from llmtune.testing.tiny import tiny_model

    tiny_model(tmp_path)
    llmtune.register_model("plain", str(tmp_path))
    llmtune.register_model("headless", str(tmp_path), automodel_class=LlamaModel)
    model, tokenizer = llmtune.get_model_tokenizer("plain", "fp32")
    assert (type(model).__name__, str(model.dtype)) == ("LlamaForCausalLM", "torch.float32")
    assert tokenizer.eos_token == "<|im_end|>"
    kwargs = {"attn_implementation": "eager"}
    headless, _ = llmtune.get_model_tokenizer("headless", "bf16", kwargs)
    assert (type(headless), headless.config._attn_implementation) == (LlamaModel, "eager")


def test_the_folder_of_a_registered_function_must_exist(fails):
    assert "no such folder" in fails(UsageError, llmtune.get_model_tokenizer_from_repo, "/no/such/folder").problem


def test_a_dtype_that_no_flag_has_is_refused(fails, tmp_path):
    import torch

    llmtune.register_model("mine", str(tmp_path))
    assert "torch.float64" in fails(UsageError, llmtune.get_model_tokenizer, "mine", torch.float64).problem


@pytest.mark.parametrize("name", ["trust_remote_code", "use_safetensors"])
def test_what_model_kwargs_cannot_decide_is_refused(fails, tmp_path, name):
    llmtune.register_model("mine", str(tmp_path))
    assert name in fails(UsageError, llmtune.get_model_tokenizer, "mine", "fp32", {name: True}).problem


SHELF = """
from pathlib import Path
from llmtune.api import Hub, hookimpl


class Shelf(Hub):
    def snapshot(self, repo, *, kind, revision=None, cached_only=False, weights=True):
        return Path(f"/shelf/{kind}/{repo}@{revision}" + ("" if weights else " without weights"))

    def upload(self, folder, repo, **options):
        raise NotImplementedError


@hookimpl
def llmtune_create_hub(name, options, run):
    return Shelf()
"""


@pytest.mark.parametrize(
    ("keywords", "folder"),
    [
        ({}, "/shelf/model/o/m@v1"),
        ({"revision": "v2"}, "/shelf/model/o/m@v2"),
        ({"model_id_or_path": "o/other"}, "/shelf/model/o/other@None"),
        ({"load_model": False}, "/shelf/model/o/m@v1 without weights"),
    ],
)
def test_a_model_is_fetched_from_a_hub_at_its_revision(site, monkeypatch, keywords, folder):
    site.install("shelf", 'module = "llmtune_plugin_shelf.plugin"\n[hub.shelf]\nkey = "ms"\n', code=SHELF)
    monkeypatch.setenv("LLMTUNE_ONLY_PLUGINS", "shelf")
    llmtune.register_model("mine", "o/m", revision="v1")(lambda model_dir, *others: (None, model_dir))
    assert llmtune.get_model_tokenizer("mine", "fp32", **keywords)[1] == folder


def test_a_default_revision_of_swift_is_none():
    from llmtune.python.session import current_catalogue

    llmtune.register_model("mine", "o/m", revision="master")
    assert "revision" not in current_catalogue().find("model", "mine").facts
