"""What training frees on a CPU is used again, instead of being given back and cleared anew."""

import subprocess
import sys

import pytest

COUNTS_PAGE_FAULTS = """
import resource
import torch
from llmtune_plugin_hf._memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(100 << 18)  # 100 MB: more than what glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_pages_are_kept():
    done = subprocess.run([sys.executable, "-c", COUNTS_PAGE_FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 100
    assert kept < given_back / 10
