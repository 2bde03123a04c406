"""The pages say what the code does: hooks with their arguments, commands, packages."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from llmtune import hookspecs
from llmtune.plugins.catalogue import discover

ROOT = Path(__file__).parent.parent
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("llmtune_"))
PAGE = (ROOT / "docs" / "plugin-authors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_its_arguments_and_an_example(hook: str) -> None:
    arguments = ", ".join(inspect.signature(getattr(hookspecs, hook)).parameters)
    heading = f"### {hook}({arguments})\n"
    assert heading in PAGE
    section = PAGE.split(heading)[1].split("\n### ")[0]
    assert f"def {hook}(" in section


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_docstring_and_somebody_who_calls_it(hook: str) -> None:
    assert inspect.getdoc(getattr(hookspecs, hook))
    sources = (path for path in (ROOT / "core" / "src").rglob("*.py") if path.name not in ("hookspecs.py", "local.py"))
    assert any(f'"{hook}"' in path.read_text(encoding="utf-8") for path in sources)


def test_every_command_has_a_page() -> None:
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "commands").glob("*.md"))
    missing = [entry.name for entry in discover().entries("command") if f"llmtune {entry.name}" not in pages]
    assert missing == []


def test_the_readme_links_every_package() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    packages = [path.parent.relative_to(ROOT) for path in ROOT.glob("plugins*/*/pyproject.toml")]
    assert [str(package) for package in packages if f"({package}/README.md)" not in readme] == []


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: path.name
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
