"""Which device computes."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tasks.core.errors import InputError

TINY_BATCH = 4  # from 8 images on, threads and oneDNN pay


def choose_device(wanted: str) -> torch.device:
    """The device asked for; `auto` takes CUDA, then MPS, then the CPU."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise InputError(f"device: expected one that is here, got {wanted}; try --device auto") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device: expected one that is here, got {wanted} of {torch.cuda.device_count()}; try --device auto"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device: expected one that is here, got mps, which this machine has not; try --device auto")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def describe_device(device: torch.device) -> str:
    """The device in words, for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    processor = platform.machine() or "unknown processor"
    if device.type == "mps":
        return f"mps (Apple GPU, {processor})"
    return f"cpu ({processor}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores)"


def threads(device: torch.device, batch_size: int) -> int:
    """How many threads share a sum: on a CPU their number changes the last bits of it."""
    return torch.get_num_threads() if device.type == "cpu" and batch_size > TINY_BATCH else 1


@contextmanager
def kernels_for(device: torch.device, batch_size: int) -> Iterator[None]:
    """Have a CPU take tiny batches in one thread and without oneDNN, whose set-up costs more than they do."""
    if device.type != "cpu" or batch_size > TINY_BATCH:
        yield
        return
    kernels: Any = torch.backends.mkldnn  # typed as if its properties could not be set
    usual = torch.get_num_threads(), kernels.enabled
    torch.set_num_threads(1)
    kernels.enabled = False
    try:
        yield
    finally:
        torch.set_num_threads(usual[0])
        kernels.enabled = usual[1]
