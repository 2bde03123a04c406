"""The conformance kit: suites that plugin authors subclass, one for each kind of plugin.

    from llmtune.testing import TunerTests

    class TestMyTuner(TunerTests):
        @pytest.fixture
        def name(self):
            return "my-tuner"

Needs pytest, and the build backend of the plugin for `ManifestTests`. Nothing else in llmtune
imports this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmtune.testing.build import create, create_template, read_rows, run_context
    from llmtune.testing.dataset import DatasetTests
    from llmtune.testing.engine import EngineTests
    from llmtune.testing.hub import HubTests
    from llmtune.testing.hub_process import HubProcess
    from llmtune.testing.hub_server.server import HubServer
    from llmtune.testing.layout import LayoutTests
    from llmtune.testing.manifest import ManifestTests
    from llmtune.testing.metric import MetricTests
    from llmtune.testing.template import TemplateTests
    from llmtune.testing.tiny import load_tiny, one_thread, tiny_model, tiny_tokenizer
    from llmtune.testing.tuner import TunerTests

__all__ = [
    "DatasetTests",
    "EngineTests",
    "HubProcess",
    "HubServer",
    "HubTests",
    "LayoutTests",
    "ManifestTests",
    "MetricTests",
    "TemplateTests",
    "TunerTests",
    "create",
    "create_template",
    "load_tiny",
    "one_thread",
    "read_rows",
    "run_context",
    "tiny_model",
    "tiny_tokenizer",
]

_HOMES = {
    "create": "build",
    "create_template": "build",
    "read_rows": "build",
    "run_context": "build",
    "HubProcess": "hub_process",
    "HubServer": "hub_server.server",
    "load_tiny": "tiny",
    "one_thread": "tiny",
    "tiny_model": "tiny",
    "tiny_tokenizer": "tiny",
}


def __getattr__(name: str) -> Any:
    """Import a suite when it is asked for: a test of a template needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, name.removesuffix("Tests").lower())
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
