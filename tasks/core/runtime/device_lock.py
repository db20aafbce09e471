"""Who trains on a device: one run at a time, by a kernel lock that ends with its process however that ends."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tasks.core.config import cache_folder
from tasks.core.errors import EnvironmentFailure

if TYPE_CHECKING:
    import torch  # takes seconds, and most of this does without

# All users of a GPU must meet here, so it is in /tmp, as X11's locks are (TMPDIR can be each one's own); not sticky, as
# in a sticky folder Linux (fs.protected_regular) and filelock refuse a lock file that another user made.
FOLDER = Path("/tmp/cifar-flow-devices")
POLL_S = 0.25


def lock_names(device: "torch.device", count: int = 1) -> tuple[str, ...]:
    """What to lease for a device and those after it: none for a CPU, and a GPU by the name that never changes."""
    if device.type != "cuda":
        return () if device.type == "cpu" else (device.type,)
    from torch.cuda import get_device_properties

    return tuple(f"cuda-GPU-{get_device_properties((device.index or 0) + place).uuid}" for place in range(count))


@contextmanager
def device_lock(devices: Sequence[str], holder: str, log: Callable[[str], None]) -> Iterator[None]:
    """Have the devices for this process alone; wait for who has them, and say for whom."""
    with ExitStack() as held:
        folder = _folder(log) if devices else FOLDER
        for device in sorted(set(devices)):  # in one order everywhere, or two runs could wait for each other
            held.enter_context(_held(folder, device, f"{holder} (process {os.getpid()})", log))
        yield


@contextmanager
def _held(folder: Path, device: str, words: str, log: Callable[[str], None]) -> Iterator[None]:
    lock, signature = FileLock(folder / f"{device}.lock", mode=0o666), folder / f"{device}.holder"
    said = holder = None
    while not _taken(lock):
        seen, holder = holder, _holder(signature)
        # Who took the lock a moment ago may not have signed yet, so what is read once only is not believed.
        if holder == seen and (said is None or holder not in ("", said)):
            log(f"waiting for {device}, which {holder or 'another process'} is using")
            said = holder
    try:
        with suppress(OSError):  # the signature is a courtesy
            signature.unlink(missing_ok=True)
            with signature.open("x", encoding="utf-8", errors="replace") as file:  # "x" follows no link
                os.fchmod(file.fileno(), 0o644)
                file.write(words)
        yield
    finally:
        with suppress(OSError):
            signature.unlink()
        lock.release()


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=POLL_S)
    except Timeout:
        return False
    except OSError as error:
        raise EnvironmentFailure(
            f"{lock.lock_file}: expected a lock for all, got {error.strerror}; delete it"
        ) from error
    return True


def _holder(signature: Path) -> str:
    """Who signed, if anyone did. Others may have put anything there: a link, a pipe, control characters."""
    with suppress(OSError), ExitStack() as opened:
        descriptor = os.open(signature, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        opened.callback(os.close, descriptor)
        return "".join(filter(str.isprintable, os.read(descriptor, 300).decode(errors="replace")))
    return ""


def _folder(log: Callable[[str], None]) -> Path:
    """The folder of the locks: everybody's, or the user's own where that cannot be had."""
    with suppress(OSError):
        if not FOLDER.exists():
            aside = Path(tempfile.mkdtemp(dir=FOLDER.parent))
            aside.chmod(0o777)
            with suppress(OSError):  # another process may be faster
                aside.rename(FOLDER)  # so that it is open to all from its start, even if this process is killed
            aside.rmdir()
    if FOLDER.is_dir() and not FOLDER.is_symlink() and os.access(FOLDER, os.W_OK | os.X_OK):
        return FOLDER
    own = cache_folder() / "devices"
    log(f"{FOLDER} cannot be written to, so other users' runs on this machine's devices are not seen")
    own.mkdir(parents=True, exist_ok=True)
    return own
