import pytest

from llmtune.errors import ManifestError
from llmtune.plugins.manifest import API, KINDS, hub_ids, parse_manifest, read_manifest, tomllib

MODEL = {"family": {"template": "chatml", "ids": {"m": {"ms": "o/m"}}}}


def test_a_family_becomes_one_row_per_checkpoint_and_the_checkpoint_wins():
    family = {
        "template": "new",
        "requires": ["x>=1"],
        "ids": {"a-7b": {"ms": "o/A", "size": "7B"}, "a-base": {"template": "old"}},
    }
    rows = parse_manifest({"api": 1, "model": {"a": family}}).tables["model"]
    assert rows == {
        "a-7b": {"template": "new", "requires": ["x>=1"], "family": "a", "ms": "o/A", "size": "7B"},
        "a-base": {"template": "old", "requires": ["x>=1"], "family": "a"},
    }


def test_summary_and_module_are_read_and_optional():
    full = parse_manifest({"api": 1, "summary": "s", "module": "p.plugin"})
    bare = parse_manifest({"api": 1})
    assert (full.summary, full.module, bare.summary, bare.module, bare.tables) == ("s", "p.plugin", "", None, {})


def test_the_mapping_that_is_checked_is_not_changed():
    raw = {"api": 1, "summary": "s", "tuner": {"t": {}}}
    parse_manifest(raw)
    assert raw == {"api": 1, "summary": "s", "tuner": {"t": {}}}


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({}, "api = 1"),
        ({"api": "1"}, "'1'"),
        ({"api": 1, "summary": 3}, "strings"),
        ({"api": 1, "module": ["m"]}, "strings"),
        ({"api": 1, "modell": {}}, "[modell]"),
        ({"api": 1, "tuner": "lora"}, "[tuner] must be a table"),
        ({"api": 1, "tuner": {"lora": 8}}, "[tuner.lora] must be a table"),
        ({"api": 1, "model": {"qwen": {"template": "x"}}}, "[model.qwen.ids]"),
        ({"api": 1, "model": {"qwen": {"ids": {}}}}, "[model.qwen.ids]"),
        ({"api": 1, "model": {"qwen": {"ids": {"q": "o/q"}}}}, "model q must be a table"),
        ({"api": 1, "tuner": {"lora": {"rank": 8}}}, "[tuner.lora] has an unknown key 'rank'"),
        ({"api": 1, "dataset": {"d": {"row": "x"}}}, "unknown key 'row'"),
        ({"api": 1, "dataset": {"d": {"hub_number": 3}}}, "unknown key 'hub_number'"),
        ({"api": 1, "command": {"deploy": {"run": "m:f"}}}, "needs both run and help"),
        ({"api": 1, "command": {"deploy": {"help": "h"}}}, "needs both run and help"),
        ({"api": 1, "template": {"t": {"suffix": []}}}, "[template.t] needs a prompt"),
    ],
)
def test_a_wrong_manifest_is_refused_with_what_is_wrong(raw, named, fails):
    assert named in fails(ManifestError, parse_manifest, raw).problem


@pytest.mark.parametrize(
    "facts",
    [{"aliases": 5}, {"aliases": "pt"}, {"aliases": [["pt"]]}, {"requires": "transformers>=5"}, {"requires": 3}],
    ids=str,
)
def test_aliases_and_requires_must_be_lists_of_text(facts, fails):
    error = fails(ManifestError, parse_manifest, {"api": 1, "engine": {"e": facts}})
    assert "[engine.e]" in error.problem
    assert next(iter(facts)) in error.problem


def test_a_checkpoint_listed_in_two_families_is_refused(fails):
    families = {"a": {"ids": {"same": {"ms": "o/a"}}}, "b": {"ids": {"same": {"ms": "o/b"}}}}
    assert "same" in fails(ManifestError, parse_manifest, {"api": 1, "model": families}).problem


def test_a_misspelt_kind_or_key_is_answered_with_the_right_one(fails):
    assert "model" in fails(ManifestError, parse_manifest, {"api": 1, "modell": {}}).fix
    assert "rows" in fails(ManifestError, parse_manifest, {"api": 1, "dataset": {"d": {"row": "x"}}}).fix


def test_a_newer_contract_says_how_to_upgrade(fails):
    error = fails(ManifestError, parse_manifest, {"api": API + 1})
    assert str(API + 1) in error.problem
    assert "pip install --upgrade llmtune" in error.fix


def test_hub_ids_are_the_texts_that_are_no_fact_of_the_kind():
    facts = {"ms": "o/m", "hf": "O/M", "acme": "m", "template": "chatml", "family": "f", "size": "7B", "rows": 3}
    assert hub_ids(facts) == {"ms": "o/m", "hf": "O/M", "acme": "m"}


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"model", "command", "template", "tools_prompt", "extension"}))
def test_every_kind_takes_the_shared_facts(kind):
    shared = {"summary": "s", "requires": [], "aliases": ["b"], "tags": ["t"], "options": "m:O"}
    assert parse_manifest({"api": 1, kind: {"a": shared}}).tables[kind] == {"a": shared}


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "llmtune-plugin.toml"
    path.write_text('api = 1\nsummary = "中文"\n[template.t]\nprompt = ["{{QUERY}}"]\n', encoding="utf-8")
    manifest = read_manifest(path)
    assert (manifest.summary, manifest.tables["template"]["t"]["prompt"]) == ("中文", ["{{QUERY}}"])


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"api = = 1", "line 1"), (b"\xff\xfe", "not valid TOML"), (None, "is not in the installed package")],
)
def test_a_file_that_cannot_be_read_is_a_manifest_error(tmp_path, content, named, fails):
    path = tmp_path / "llmtune-plugin.toml"
    if content is not None:
        path.write_bytes(content)
    assert named in fails(ManifestError, read_manifest, path).problem


@pytest.mark.parametrize(
    ("fact", "said"),
    [
        ('prompt = ["Q: {{QUERRY}}"]', r"unknown slot \{\{QUERRY\}\}"),
        ('prompt = ["Q: "]', "every question would be lost"),
        ('prompt = ["{{QUERY}}"]\nsystem_prefix = ["S: "]', "every system prompt would be lost"),
        ('prompt = ["{{QUERY}}"]\nthinking = "strip_histry"', "thinking must be one of keep, strip_history"),
        ('prompt = ["{{QUERY}}"]\nsystem_in = "middle"', "system_in must be one of prefix"),
        ('prompt = ["{{QUERY}}"]\nauto_add_bos = "yes"', "auto_add_bos must be one of True, False"),
    ],
)
def test_a_template_that_would_lose_text_is_refused(fact, said):
    with pytest.raises(ManifestError, match=said):
        parse_manifest(tomllib.loads(f"api = 1\n[template.mine]\n{fact}"))
