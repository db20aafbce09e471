"""Which device computes."""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from tasks.core.errors import InputError

TINY_BATCH = 4  # from 8 images on, threads and oneDNN pay


@dataclass(frozen=True)
class Hardware:
    """What computes: a device, how many of its kind, and whether only algorithms that repeat themselves may."""

    device: torch.device
    count: int = 1
    deterministic: bool = False


def choose_device(wanted: str) -> torch.device:
    """The device asked for; `auto` takes CUDA, then MPS, then the CPU."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device: expected cpu, cuda, cuda:N or mps, got {wanted}; try --device auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: expected one that is here, got {wanted} of {torch.cuda.device_count()}; try --device auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device: expected one that is here, got mps, which this machine has not; try --device auto")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else torch.device(device.type)


def choose_hardware(wanted: str, count: int = 1, deterministic: bool = False) -> Hardware:
    """The device asked for, and as many of its kind as asked for; a CPU counts as many times as is asked."""
    device = choose_device(wanted)
    here = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type, count)
    first = device.index or 0
    if first + count > here:
        raise InputError(f"devices: expected at most {here - first} from {device} on, got {count}; give fewer")
    return Hardware(device, count, deterministic)


def is_fast_in_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "mps":
        return False
    found = torch.cpu.get_capabilities()
    # Intel's AVX512 takes twice as long for it as for float32. AMX is fast there, but virtual machines may hide it.
    in_vectors = found.get("avx512_bf16") and not found.get("cpu_name", "").startswith("Intel")
    return bool(found.get("amx_bf16") or found.get("bf16") or in_vectors)


def precision_for(device: torch.device, wanted: str) -> torch.dtype:
    """The type that convolutions and matrix products are computed in: `auto` takes bfloat16 where it is fast."""
    return torch.bfloat16 if wanted == "auto" and is_fast_in_bfloat16(device) else torch.float32


def short_name(kind: torch.dtype | torch.memory_format) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(kind).removeprefix("torch.")


def layout_for(device: torch.device, wanted: str) -> torch.memory_format:
    """The order in memory that images are computed in: `auto` takes channels-last where it is fast."""
    return torch.channels_last if wanted == "auto" and device.type != "mps" else torch.contiguous_format


@contextmanager
def float32_precision(precision: str) -> Iterator[None]:
    """Have a GPU compute what is in float32 exactly so, or with `auto` in the quicker TensorFloat-32."""
    backends: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    usual = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = precision == "auto"
    try:
        yield
    finally:
        for backend, allowed_before in zip(backends, usual, strict=True):
            backend.allow_tf32 = allowed_before


def is_compiled(hardware: Hardware, wanted: str) -> bool:
    """Whether a network is compiled: `auto` does so on one GPU that Triton has kernels for, if it finds a compiler."""
    if wanted != "auto" or hardware.device.type != "cuda" or hardware.count > 1:
        return False
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return bool(compiler and find_spec("triton")) and torch.cuda.get_device_capability(hardware.device) >= (7, 0)


def describe_device(device: torch.device) -> str:
    """The device in words, for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    processor = platform.machine() or "unknown processor"
    if device.type == "mps":
        return f"mps (Apple GPU, {processor})"
    return f"cpu ({processor}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores)"


def describe_hardware(hardware: Hardware, precision: str, compiling: str) -> str:
    """All that training computes with, in words, and why in that precision."""
    device = hardware.device
    many = f"{hardware.count} of " if hardware.count > 1 else ""
    kind = {"cuda": "", "mps": "; there is no CUDA here"}.get(device.type, "; there is neither CUDA nor MPS here")
    dtype = short_name(precision_for(device, precision))
    slow = "" if precision == "float32" or dtype == "bfloat16" else ", as bfloat16 is slow here"
    compiled = ", compiled" if is_compiled(hardware, compiling) else ""
    if compiling == "auto" and device.type == "cuda" and hardware.count == 1 and not compiled:
        compiled = ", not compiled, as Triton, a compiler, or a GPU for it is not found here"
    return f"{many}{describe_device(device)}{kind}, in {dtype}{slow}{compiled}"


def threads(device: torch.device, batch_size: int) -> int:
    """How many threads share a sum: on a CPU their number changes the last bits of it."""
    return torch.get_num_threads() if device.type == "cpu" and batch_size > TINY_BATCH else 1
