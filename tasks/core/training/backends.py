"""What a training computes with beside its device: threads, kernels, precision, memory, and what to do without."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from tasks.core.errors import InputError
from tasks.core.models.errors import model_errors
from tasks.core.recipes import OUR_MODELS, Recipe
from tasks.core.runtime.device import TINY_BATCH, Hardware, float32_precision

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h
STEPS = "tasks.core.training.steps"
OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")  # which torch tells in no other way


@contextmanager
def training_backend(recipe: Recipe, hardware: Hardware) -> Iterator[None]:
    """All that follows, for this block; torch is then as it was."""
    own = recipe.model not in OUR_MODELS
    with (
        user_model_errors(recipe.model, alone=hardware.count == 1) if own else nullcontext(),
        memory_errors(hardware, recipe.batch_size),
        determinism_errors(),
        normalization_errors(recipe.batch_size),
        backend_settings(hardware, recipe.batch_size),
        float32_precision(recipe.precision),
        malloc_tuning(),
    ):
        yield


def user_model_errors(model: str, *, alone: bool) -> AbstractContextManager[None]:
    """Turn what goes wrong in training a network of one's own into one line: in its code, or in a step.

    A step of several processes may go wrong by another one's end, too.
    """
    return model_errors(model, "it to be trained", only_within=STEPS if alone else model.partition(":")[0])


@contextmanager
def memory_errors(hardware: Hardware, batch_size: int) -> Iterator[None]:
    """Turn a device's memory running out into one line with what to try."""
    try:
        yield
    except RuntimeError as error:
        words = str(error)
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in words for sign in OUT_OF_MEMORY):
            raise
        smaller = batch_size // 2 // hardware.count * hardware.count  # which divides among the devices
        wanted = f"try --batch-size {smaller}" if smaller else "try a smaller --model"
        raise InputError(
            f"device {hardware.device}: expected room for batches of {batch_size} images, got out of memory; {wanted}"
        ) from error


@contextmanager
def determinism_errors() -> Iterator[None]:
    """Turn an operation that cannot repeat itself to the bit, though all were asked to, into one line."""
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise InputError(
            f"deterministic: expected operations that repeat themselves to the bit, got {operation}, which does not; "
            "leave --deterministic out or change the --model"
        ) from error


@contextmanager
def normalization_errors(batch_size: int) -> Iterator[None]:
    """Turn a batch, as the last one of an epoch, that is too small for batch norm into one line."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel when training"):
            raise
        raise InputError(
            f"batch_size {batch_size}: expected two images or more in each batch for the network's batch norm, got 1; "
            "change --batch-size or --validation, so that an epoch's last one has more"
        ) from error


@contextmanager
def malloc_tuning() -> Iterator[None]:
    """Have glibc keep what one step frees for the next: given back and paged in anew, it takes a fifth of a step.

    Other allocators are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    glibc = ctypes.CDLL(None)
    glibc.mallopt(MMAP_MAX, 0)
    glibc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        glibc.mallopt(MMAP_MAX, 65_536)  # as glibc begins with
        glibc.mallopt(TRIM_THRESHOLD, 128 * 1024)
        glibc.malloc_trim(0)


@contextmanager
def backend_settings(hardware: Hardware, batch_size: int) -> Iterator[None]:
    """Have a CPU take tiny batches in one thread and without oneDNN, whose set-up costs more than they do.

    A GPU tries which of its kernels are the quickest. If asked for, only algorithms that repeat themselves are used
    instead; what has none is an error.
    """
    kernels: Any = torch.backends.mkldnn  # typed as if its properties could not be set
    cudnn: Any = torch.backends.cudnn
    usual = torch.get_num_threads(), kernels.enabled, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    if hardware.device.type == "cpu" and batch_size <= TINY_BATCH:
        torch.set_num_threads(1)
        kernels.enabled = False
    cudnn.benchmark = not hardware.deterministic
    if hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only so
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(usual[0])
        kernels.enabled, cudnn.benchmark = usual[1:3]
        torch.use_deterministic_algorithms(usual[3])
