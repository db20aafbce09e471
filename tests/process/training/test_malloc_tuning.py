"""The tuning of malloc during training."""

import platform
import subprocess
import sys

import pytest

MEMORY = """
import resource
from pathlib import Path
import torch
from tasks.core.training.backends import malloc_tuning

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def paged_in(tensors: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.zeros(2**26, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with malloc_tuning():
    paged_in(20)
    print(paged_in(5), resident())
print(resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is tuned")
def test_freed_memory_is_kept_for_the_next_step_and_freed_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    paged_in, kept, freed = map(int, done.stdout.split())
    assert paged_in < 1_000  # each tensor takes 16,384 pages
    assert kept - freed > 50 * 2**20
