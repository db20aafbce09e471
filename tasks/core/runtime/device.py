"""The device that computes: its choice, precision, memory layout and description."""

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from tasks.core.errors import InputError

TINY_BATCH = 4  # threads and oneDNN are faster from 8 images on


@dataclass(frozen=True)
class Hardware:
    """The first device, the number of devices of its kind, and whether only deterministic algorithms may run."""

    device: torch.device
    count: int = 1
    deterministic: bool = False


def choose_device(wanted: str) -> torch.device:
    """Return the device with this name; `auto` is the first available of CUDA, MPS and CPU."""
    cuda_count, has_mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if wanted == "auto":
        wanted = "cuda" if cuda_count else "mps" if has_mps else "cpu"
    match = re.fullmatch(r"(cpu|cuda|mps)(?::(\d+))?", wanted)
    if not match:
        raise InputError("--device", expected="cpu, cuda, cuda:N or mps", got=wanted, advice="try --device auto")
    kind, index = match[1], int(match[2] or 0)
    if (kind == "cuda" and index >= cuda_count) or (kind == "mps" and not has_mps):
        available = f"{cuda_count} CUDA devices" if kind == "cuda" else "no MPS"
        got = f"{wanted}, but this machine has {available}"
        raise InputError("--device", expected="an available device", got=got, advice="try --device auto")
    return torch.device(kind, index) if kind == "cuda" else torch.device(kind)


def choose_hardware(wanted: str, count: int = 1, deterministic: bool = False) -> Hardware:
    """Return `count` devices from the named one on; a CPU can run any number of workers."""
    device = choose_device(wanted)
    first = device.index or 0
    available = {"cuda": torch.cuda.device_count() - first, "mps": 1}.get(device.type, count)
    if count > available:
        raise InputError("--devices", expected=f"at most {available} from {device} on", got=str(count))
    return Hardware(device, count, deterministic)


def is_fast_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False
    features = torch.cpu.get_capabilities()
    # Intel's AVX512 takes twice as long for bfloat16 as for float32. AMX is fast, but virtual machines can hide it.
    is_fast_avx512 = features.get("avx512_bf16") and not features.get("cpu_name", "").startswith("Intel")
    return bool(features.get("amx_bf16") or features.get("bf16") or is_fast_avx512)


def precision_for(device: torch.device, wanted: str) -> torch.dtype:
    """Return the type for convolutions and matrix products; `auto` is bfloat16 where it is fast."""
    return torch.bfloat16 if wanted == "auto" and is_fast_in_bfloat16(device) else torch.float32


def short_name(kind: torch.dtype | torch.memory_format) -> str:
    """Return `bfloat16` for torch.bfloat16."""
    return str(kind).removeprefix("torch.")


def layout_for(device: torch.device, wanted: str) -> torch.memory_format:
    """Return the memory layout of images; `auto` is channels-last where it is fast."""
    return torch.channels_last if wanted == "auto" and device.type != "mps" else torch.contiguous_format


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """Let a GPU compute float32 operations exactly, or with `auto` in the faster TensorFloat-32."""
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    previous = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "auto"
    try:
        yield
    finally:
        for backend, allow_tf32 in zip(backends, previous, strict=True):
            backend.allow_tf32 = allow_tf32


def is_compiled(hardware: Hardware, wanted: str) -> bool:
    """Whether the network is compiled: `auto` needs a single GPU that Triton supports, Triton and a C compiler."""
    if wanted != "auto" or hardware.device.type != "cuda" or hardware.count > 1:
        return False
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(compiler and find_spec("triton")) and torch.cuda.get_device_capability(hardware.device) >= (7, 0)


def describe_device(device: torch.device) -> str:
    """Return the device with its name, or with the processor's features."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    processor = platform.machine() or "unknown processor"
    if device.type == "mps":
        return f"mps (Apple GPU, {processor})"
    return f"cpu ({processor}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores)"


def describe_hardware(hardware: Hardware, precision: str, compiling: str) -> str:
    """Return device, precision and compilation in one line, with the reason where a slower choice was made."""
    device = hardware.device
    workers = f"{hardware.count} workers, the first on " if hardware.count > 1 else ""
    missing = {"cuda": "", "mps": ", no CUDA device"}.get(device.type, ", no CUDA or MPS device")
    dtype = short_name(precision_for(device, precision))
    slow = "" if precision == "float32" or dtype == "bfloat16" else " (bfloat16 is slow on this device)"
    compiled = "; compiled" if is_compiled(hardware, compiling) else ""
    if compiling == "auto" and device.type == "cuda" and hardware.count == 1 and not compiled:
        compiled = "; not compiled (Triton, a C compiler or a supported GPU is missing)"
    return f"{workers}{describe_device(device)}{missing}; {dtype}{slow}{compiled}"


def thread_count(device: torch.device, batch_size: int) -> int:
    """Return how many threads share a sum; on a CPU this number changes the last bits of the result."""
    return torch.get_num_threads() if device.type == "cpu" and batch_size > TINY_BATCH else 1
