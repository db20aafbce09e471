"""What the measurements run on, a clean process: python benchmarks/machine.py describe '{}'."""

import os
import platform
from pathlib import Path

import torch
from processes import answer


def describe() -> dict[str, str | None]:
    """In words; `gpu` is None where torch finds no CUDA device."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    software = f"Python {platform.python_version()}, torch {torch.__version__}"
    words = f"{_processor()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}; {platform.system()}; {software}"
    return {"words": f"{words}; {gpu or 'no GPU'}", "gpu": gpu}


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    answer(describe)
