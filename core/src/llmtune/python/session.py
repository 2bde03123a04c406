"""What a call from Python works with: the catalogue of this moment, a plugin manager, a fetcher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmtune.config import environment
from llmtune.config.build import make_section, options_class
from llmtune.model.fetch import Fetcher
from llmtune.plugins.catalogue import Catalogue, Entry, discover
from llmtune.plugins.local import with_session
from llmtune.plugins.manager import PluginManager
from llmtune.plugins.registration import check_form
from llmtune.plugins.requirements import check_requirements
from llmtune.specs import RunContext, RunPlan


def current_catalogue() -> Catalogue:
    """Return what is installed and switched on, and what this process has registered until now."""
    return with_session(discover(only=environment.only_plugins(), disabled=environment.disabled_plugins()))


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call: nothing is kept from one to the next."""

    catalogue: Catalogue
    manager: PluginManager
    run: RunContext

    @classmethod
    def start(cls) -> Session:
        catalogue = current_catalogue()
        manager = PluginManager(catalogue, trace=environment.plugin_trace())
        return cls(catalogue=catalogue, manager=manager, run=RunContext(plan=RunPlan(command="python")))

    def find(self, kind: str, name: str) -> Entry:
        """Return the entry called `name`; raise `UnknownName`, or `PluginFailed` for a missing requirement."""
        check_form(f"the {kind}", name, str, "a name", fix=f"llmtune {kind}s lists the names")
        entry = self.catalogue.find(kind, name)
        check_requirements(entry)
        return entry

    def fetcher(self, hub: str | None = None) -> Fetcher:
        return Fetcher(self.manager, self.run, hub=hub or environment.preferred_hub(), offline=False)

    def options(self, entry: Entry, values: dict[str, Any]) -> Any:
        """Return the validated options of an entry, taking from `values` what is its own; None when it has none."""
        section = options_class(entry)
        if section is None:
            return None
        return make_section(section, {name: value for name, value in values.items() if name in section.model_fields})
