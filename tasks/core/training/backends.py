"""Threads, kernels, precision and memory of a training, and errors that PyTorch reports in its own terms."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from tasks.core.errors import InputError
from tasks.core.models.errors import model_errors
from tasks.core.recipes import BUILT_IN_MODELS, Recipe
from tasks.core.runtime.device import TINY_BATCH, Hardware, float32_precision

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h
STEPS = "tasks.core.training.steps"
OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")  # errors without a class of their own
NOT_DETERMINISTIC = " does not have a deterministic implementation"
TOO_SMALL_FOR_BATCH_NORM = "Expected more than 1 value per channel when training"


@contextmanager
def training_backend(recipe: Recipe, hardware: Hardware) -> Iterator[None]:
    """Set PyTorch up for a training in this block; afterwards its settings are as before."""
    # With several processes a step may also fail because another process has ended.
    only_within = STEPS if hardware.count == 1 else recipe.model.partition(":")[0]
    network_errors = model_errors(recipe.model, "a network that trains without errors", only_within=only_within)
    with (
        nullcontext() if recipe.model in BUILT_IN_MODELS else network_errors,
        training_errors(hardware, recipe.batch_size),
        backend_settings(hardware, recipe.batch_size),
        float32_precision(recipe.precision),
        malloc_tuning(),
    ):
        yield


@contextmanager
def training_errors(hardware: Hardware, batch_size: int) -> Iterator[None]:
    """Turn PyTorch's errors that another setting avoids into one line with advice."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if explained := _explain(error, hardware, batch_size):
            raise explained from error
        raise


def _explain(error: Exception, hardware: Hardware, batch_size: int) -> InputError | None:
    message = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(sign in message for sign in OUT_OF_MEMORY):
        smaller = batch_size // 2 // hardware.count * hardware.count  # a multiple of the number of devices
        return InputError(
            f"device {hardware.device}",
            expected=f"memory for batches of {batch_size} images",
            got="out of memory",
            advice=f"try --batch-size {smaller}" if smaller else "try a smaller --model",
        )
    if NOT_DETERMINISTIC in message:
        return InputError(
            "--deterministic",
            expected="only operations that are deterministic",
            got=f"{message.partition(NOT_DETERMINISTIC)[0]}, which is not",
            advice="leave --deterministic out or change the --model",
        )
    if message.startswith(TOO_SMALL_FOR_BATCH_NORM):
        return InputError(
            f"--batch-size {batch_size}",
            expected="at least two images in each batch for batch norm",
            got="1",
            advice="change --batch-size or --validation, so that the last batch of an epoch has more",
        )
    return None


@contextmanager
def malloc_tuning() -> Iterator[None]:
    """Have glibc keep freed memory for the next step: returning and remapping it takes a fifth of a step's time.

    Other allocators are left alone.
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
        glibc.mallopt(MMAP_MAX, 65_536)  # glibc's defaults
        glibc.mallopt(TRIM_THRESHOLD, 128 * 1024)
        glibc.malloc_trim(0)


@contextmanager
def backend_settings(hardware: Hardware, batch_size: int) -> Iterator[None]:
    """Choose threads and kernels for this block.

    A CPU computes tiny batches in one thread and without oneDNN, whose set-up takes longer than the batch. A GPU
    benchmarks its kernels, or with `deterministic` uses deterministic ones; an operation without one is an error.
    """
    onednn: Any = torch.backends.mkldnn  # typed as if its properties could not be set
    cudnn: Any = torch.backends.cudnn
    before = torch.get_num_threads(), onednn.enabled, cudnn.benchmark, torch.are_deterministic_algorithms_enabled()
    if hardware.device.type == "cpu" and batch_size <= TINY_BATCH:
        torch.set_num_threads(1)
        onednn.enabled = False
    cudnn.benchmark = not hardware.deterministic
    if hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        onednn.enabled, cudnn.benchmark = before[1:3]
        torch.use_deterministic_algorithms(before[3])
