import json

from llmtune.plugins.catalogue import BUILTIN
from llmtune.plugins.plan import make_plan


def test_core_comes_first_then_the_chosen_plugins_by_name_and_no_other(site):
    for name in ("zeta", "acme", "unused"):
        site.install(name, f"[tuner.{name}]\n", version="2.0")
    catalogue = site.catalogue()
    plan = make_plan("sft", [catalogue.find("tuner", "zeta"), catalogue.find("tuner", "acme")], catalogue)
    assert plan.plugins == (BUILTIN, "acme", "zeta")
    assert plan.versions["llmtune-plugin-zeta"] == "2.0"
    assert set(plan.versions) == {"llmtune", "llmtune-plugin-acme", "llmtune-plugin-zeta"}


def test_choices_are_qualified_and_several_of_a_kind_are_joined(site):
    site.install("acme", "[dataset.a]\n[dataset.b]\n[tuner.t]\n")
    catalogue = site.catalogue()
    chosen = [catalogue.find("dataset", "a"), catalogue.find("tuner", "t"), catalogue.find("dataset", "b")]
    assert make_plan("sft", chosen, catalogue).choices == {"dataset": "acme::a,acme::b", "tuner": "acme::t"}


def test_local_plugins_are_always_part_of_the_plan(local):
    catalogue = local("from llmtune import register_dataset\nregister_dataset('d', '/data')\n")
    plan = make_plan("sft", [], catalogue, local=["mine.py"])
    assert (plan.plugins, plan.local) == ((BUILTIN, "local-mine"), ("mine.py",))


def test_the_plan_survives_json(site):
    site.install("acme", "[tuner.t]\n")
    catalogue = site.catalogue()
    plan = make_plan("sft", [catalogue.find("tuner", "t")], catalogue)
    stored = json.loads(json.dumps(plan.as_json()))
    assert (stored["plugins"], stored["choices"]) == ([BUILTIN, "acme"], {"tuner": "acme::t"})
