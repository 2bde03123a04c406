from pathlib import Path

import pytest

from llmtune.testing import ManifestTests


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_neftune" / "llmtune-plugin.toml"
