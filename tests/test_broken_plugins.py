"""Seven plugins broken in six ways: each is listed with its reason, and the others work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import NAMES, llmtune_process
from hundred_plugins import write_plugins

STATIC = {
    "fails-on-import": ("broken", "imports a_module_that_nobody_has, which is not installed"),
    "broken-manifest": ("broken", "not valid TOML"),
    "newer-api": ("broken", "needs plugin api 99"),
    "claims-first": ("conflict", "tuner 'claimed-twice' is also claimed by claims-second"),
    "claims-second": ("conflict", "tuner 'claimed-twice' is also claimed by claims-first"),
    "imports-torch": ("slow", "imports torch at module level"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_plugins(folder)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    return {"LLMTUNE_CACHE": str(tmp_path / "cache")}


def listed(site: Path, cache: dict[str, str]) -> dict[str, dict[str, str]]:
    return {one["name"]: one for one in json.loads(llmtune_process("plugins", "--json", site=site, **cache).out)}


@pytest.mark.parametrize("name", STATIC)
def test_what_a_manifest_or_source_shows_is_listed_at_once(site: Path, cache: dict[str, str], name: str) -> None:
    plugin = listed(site, cache)[name]
    state, reason = STATIC[name]
    assert plugin["state"] == state
    assert reason in plugin["reason"]
    assert plugin["fix"]


def test_an_import_that_raises_is_found_by_the_doctor_and_listed_from_then_on(
    site: Path, cache: dict[str, str]
) -> None:
    assert listed(site, cache)["raises-on-import"]["state"] == "ok"  # nothing was imported yet
    doctor = llmtune_process("plugins", "doctor", "raises-on-import", site=site, **cache)
    assert doctor.code == 1
    assert "ZeroDivisionError" in doctor.out
    plugin = listed(site, cache)["raises-on-import"]
    assert plugin["state"] == "broken"
    assert "ZeroDivisionError" in plugin["reason"]


def test_the_doctor_measures_a_heavy_import(site: Path, cache: dict[str, str]) -> None:
    doctor = llmtune_process("plugins", "doctor", "imports-torch", site=site, **cache)
    assert doctor.code == 1
    assert "imports torch" in doctor.out


def test_all_other_plugins_are_fine(site: Path, cache: dict[str, str]) -> None:
    others = [one for name, one in listed(site, cache).items() if name not in STATIC and name != "raises-on-import"]
    assert len(others) > 100
    assert {one["state"] for one in others} == {"ok"}


def use(site: Path, cache: dict[str, str], tiny: Path, *flags: str) -> tuple[int, str]:
    base = ("sft", "--model_type", "smollm2-135m-instruct", "--model_id_or_path", str(tiny))
    result = llmtune_process(*base, "--dataset", "self-cognition", *NAMES, *flags, site=site, **cache)
    assert "Traceback" not in result.err
    return result.code, result.err


def test_using_a_plugin_that_fails_names_dist_version_cause_and_doctor(
    site: Path, cache: dict[str, str], tiny: Path
) -> None:
    code, error = use(site, cache, tiny, "--sft_type", "fails-on-import-tuner")
    assert code == 1
    for part in (
        "llmtune-plugin-fails-on-import 1.2.3",
        "a_module_that_nobody_has",
        "llmtune plugins doctor fails-on-import",
    ):
        assert part in error


@pytest.mark.parametrize(
    ("tuner", "reason"), [("newer-api::x", "needs plugin api 99"), ("broken-manifest::x", "not valid TOML")]
)
def test_using_a_plugin_with_a_bad_manifest_says_why(
    site: Path, cache: dict[str, str], tiny: Path, tuner: str, reason: str
) -> None:
    code, error = use(site, cache, tiny, "--sft_type", tuner)
    assert code == 1
    assert reason in error


def test_a_name_claimed_twice_asks_which_one(site: Path, cache: dict[str, str], tiny: Path) -> None:
    code, error = use(site, cache, tiny, "--sft_type", "claimed-twice")
    assert code == 2
    assert "claims-first::claimed-twice" in error
    assert "claims-second::claimed-twice" in error


def test_a_run_works_among_broken_plugins(site: Path, cache: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    flags = (
        "--max_steps",
        "1",
        "--gradient_accumulation_steps",
        "1",
        "--dtype",
        "fp32",
        "--output_dir",
        str(tmp_path / "out"),
    )
    code, error = use(site, cache, tiny, *flags)
    assert code == 0, error
