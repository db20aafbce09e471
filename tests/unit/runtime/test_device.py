"""The device: which one is chosen, and how it computes."""

import platform
import subprocess
import sys

import pytest
import torch

from tasks.core.errors import InputError
from tasks.core.runtime.device import choose_device, describe_device, precision_for

CPU = torch.device("cpu")
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


def test_auto_finds_a_device_and_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU
    torch.zeros(1, device=choose_device("auto"))
    assert describe_device(CPU).startswith("cpu (")


@pytest.mark.parametrize("number", [torch.cuda.device_count(), 99, 10**20])
def test_a_gpu_that_is_not_here_is_refused_with_how_many_are(number: int) -> None:
    with pytest.raises(InputError) as caught:
        choose_device(f"cuda:{number}")
    assert str(caught.value).startswith("device: expected ")
    assert f"cuda:{number}" in str(caught.value)


@pytest.mark.parametrize("wanted", ["meta", "xpu", "gpu", "cuda:first"])
def test_what_is_no_device_for_this_is_refused_with_what_is(wanted: str) -> None:
    with pytest.raises(InputError, match=f"device: expected cpu, cuda, cuda:N or mps, got {wanted}; try --device auto"):
        choose_device(wanted)


def test_all_cores_of_a_cpu_are_one_device() -> None:
    assert choose_device("cpu:3") == CPU


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": "Neoverse V1", "bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Core", "avx2": True}, torch.float32),
    ],
    ids=str,
)
def test_a_processor_computes_in_bfloat16_only_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert precision_for(CPU, "auto") == expected
    assert precision_for(CPU, "float32") == torch.float32


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    paged_in, kept, given_back = map(int, done.stdout.split())
    assert paged_in < 1_000  # of 16,384 pages that each tensor takes
    assert kept - given_back > 50 * 2**20
