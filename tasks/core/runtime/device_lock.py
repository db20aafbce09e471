"""One training run per device: kernel locks, which the operating system releases when their process ends."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tasks.core.config import cache_folder
from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime.logs import logger

if TYPE_CHECKING:
    import torch  # importing it takes seconds

# All users of a GPU must share this folder, so it is in /tmp (TMPDIR can differ between users). It is not sticky: in a
# sticky folder Linux (fs.protected_regular) and filelock refuse a lock file that another user created.
SHARED_FOLDER = Path("/tmp/cifar-flow-devices")
LOG_AFTER_S = 0.25


def lock_names(device: "torch.device", count: int = 1) -> tuple[str, ...]:
    """Return the locks of `count` devices from `device` on: none for a CPU, and for a GPU one named by its UUID."""
    if device.type != "cuda":
        return () if device.type == "cpu" else (device.type,)
    from torch.cuda import get_device_properties

    first = device.index or 0
    return tuple(f"cuda-GPU-{get_device_properties(index).uuid}" for index in range(first, first + count))


@contextmanager
def device_lock(names: Sequence[str]) -> Iterator[None]:
    """Hold the locks with these names; wait, and log it once, while another process holds one of them."""
    with ExitStack() as locks:
        folder = _lock_folder() if names else SHARED_FOLDER
        for name in sorted(set(names)):  # one order for all processes, so that no two wait for each other
            lock = FileLock(folder / f"{name}.lock", mode=0o666)
            _acquire(lock, name)
            locks.callback(lock.release)
        yield


def _acquire(lock: FileLock, name: str) -> None:
    try:
        try:
            lock.acquire(timeout=LOG_AFTER_S)
        except Timeout:
            logger.info(f"train: waiting for {name}, another process trains on it")
            lock.acquire()
    except OSError as error:
        expected = "a lock file for all users"
        raise EnvironmentFailure(lock.lock_file, expected=expected, got=error.strerror, advice="delete it") from error


def _lock_folder() -> Path:
    """Return the folder for all users, or the user's own where the shared one cannot be written."""
    with suppress(OSError):
        if not SHARED_FOLDER.exists():
            new = Path(tempfile.mkdtemp(dir=SHARED_FOLDER.parent))
            new.chmod(0o777)
            with suppress(OSError):  # another process may be faster
                new.rename(SHARED_FOLDER)  # one step, so that the folder never exists with narrower permissions
            new.rmdir()
    if SHARED_FOLDER.is_dir() and not SHARED_FOLDER.is_symlink() and os.access(SHARED_FOLDER, os.W_OK | os.X_OK):
        return SHARED_FOLDER
    own = cache_folder() / "devices"
    logger.info(f"train: cannot write to {SHARED_FOLDER}; training runs of other users on this device are not detected")
    own.mkdir(parents=True, exist_ok=True)
    return own
