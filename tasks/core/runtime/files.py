"""Digests, and files that are either complete or absent: written to a temporary name, synced, then renamed."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from tasks.core.errors import EnvironmentFailure

MARGIN_BYTES = 50_000_000
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ACCESS_ERRORS = {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}
UNCERTAIN_NS = 2_000_000_000


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_cached(path: Path) -> str:
    """Return the SHA-256 of a file, computed once per process while its inode, size and times stay the same.

    A file that changed less than two seconds ago is not cached: its times are too coarse to show the next change.
    """
    stat = path.stat()
    if time.time_ns() - stat.st_ctime_ns < UNCERTAIN_NS:
        return sha256_of(path)
    return _sha256_of_state(path, stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@cache
def _sha256_of_state(path: Path, *_: int) -> str:
    return sha256_of(path)


def canonical_json(value: Any) -> str:
    """Return JSON in which equal values have equal text, for digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def pretty_json(value: Any) -> bytes:
    """Return JSON in the format of the store's own files."""
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it replaces `path` when the block succeeds."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with disk_errors(path.parent):
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    except OSError as error:
        if error.filename != str(temporary):
            raise
        problem = f"{path}: cannot be written ({error.strerror})"
        raise EnvironmentFailure(problem, advice="give another name or folder") from error
    finally:
        with suppress(OSError):  # the error that stopped the write is the one to report
            temporary.unlink(missing_ok=True)


def unfinished_writes(folder: Path) -> list[str]:
    """Return the names in a folder that are being written, or were when their process was killed."""
    return sorted({temporary.name[1:].rpartition(".")[0] for temporary in folder.glob(".*.*")})


def remove_leftovers(path: Path) -> None:
    """Delete temporary files of `path` that killed processes left; no other process may be writing it."""
    for temporary in path.parent.glob(f".{path.name}.*"):
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def check_free_space(folder: Path, size_bytes: int) -> None:
    """Raise EnvironmentFailure unless the disk of `folder` has room for that many bytes and a margin."""
    needed, free = size_bytes + MARGIN_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        expected, got = f"{needed / 1e6:,.0f} MB free in {folder}", f"{free / 1e6:,.0f} MB"
        raise EnvironmentFailure("disk", expected=expected, got=got, advice="free some space or give --store")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, and a refused access inside `folder`, into an EnvironmentFailure."""
    try:
        yield
    except OSError as error:
        is_inside = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(folder)
        if error.errno not in DISK_FULL and not (error.errno in ACCESS_ERRORS and is_inside):
            raise
        problem = f"disk: {error.strerror} in {folder}"
        advice = "free some space" if error.errno in DISK_FULL else "check the disk and its permissions"
        raise EnvironmentFailure(problem, advice=f"{advice} or give another folder") from error
