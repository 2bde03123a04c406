"""Files beside the tests of a package (golden text, reference networks) can be imported by their names."""

import gc
import sys
from pathlib import Path

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take thousands of collected tests, and what they imported, out of every garbage collection to come."""
    gc.collect()
    gc.freeze()


sys.path += sorted(str(folder) for folder in Path(__file__).parent.glob("plugins*/*/tests"))
