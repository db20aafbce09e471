"""Seeds and states of the global random generators of PyTorch, NumPy and Python."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def fixed_seed(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed all generators, that of a GPU `device` included, and restore their states at the end of the block."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device and device.type == "cuda" else []):
            seed_all(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def get_random_state(device: torch.device) -> dict[str, Any]:
    """Return the states of all generators except that of MPS, as values that a checkpoint can hold."""
    numpy: Any = np.random.get_state()
    _, key, *rest = numpy
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": (torch.from_numpy(key.astype(np.int64)), *rest),
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what `get_random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    random.setstate(state["python"])
    key, *rest = state["numpy"]
    np.random.set_state(("MT19937", key.cpu().numpy().astype(np.uint32), *rest))
