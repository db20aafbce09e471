"""Files that are whole or absent: written aside, synced, then renamed into place."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.core.errors import EnvironmentFailure

MARGIN_BYTES = 50_000_000
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_hashed: dict[tuple[int | Path, ...], str] = {}
UNCERTAIN_NS = 2_000_000_000


def sha256_cached(path: Path) -> str:
    """The SHA-256 of a file, taken once in a process for as long as inode, size and times stay the same.

    A file that was changed a moment ago is hashed again: its times are too coarse to tell the next change.
    """
    identity = _identity(path)
    if identity not in _hashed:
        sha256 = sha256_of(path)
        if identity != _identity(path) or time.time_ns() - path.stat().st_ctime_ns < UNCERTAIN_NS:
            return sha256
        _hashed[identity] = sha256
    return _hashed[identity]


def _identity(path: Path) -> tuple[int | Path, ...]:
    facts = path.stat()
    return (path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


def canonical_json(value: Any) -> str:
    """The one spelling of a value that digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's names, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` in one rename when the block ends well."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with disk_errors(path.parent):
            yield aside
            sync(aside)
            aside.replace(path)
            sync(path.parent)
    except OSError as error:
        if error.filename != str(aside):  # of something else
            raise
        raise EnvironmentFailure(
            f"{path}: cannot be written ({error.strerror}); give another name or folder"
        ) from error
    finally:
        with suppress(OSError):  # what kept it from being written; that is told
            aside.unlink(missing_ok=True)


def unfinished(folder: Path) -> list[str]:
    """The names in a folder that are being written, or were when a process was killed."""
    return sorted({aside.name[1:].rpartition(".")[0] for aside in folder.glob(".*.*")})


def sweep(path: Path) -> None:
    """Remove what killed processes left beside `path` in writing it. Nobody else may be writing it now."""
    for aside in path.parent.glob(f".{path.name}.*"):
        aside.unlink(missing_ok=True)


def pretty_json(value: Any) -> bytes:
    """JSON as it stands in the store's own files."""
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def write_bytes(path: Path, content: bytes) -> None:
    with atomic_write(path) as aside:
        aside.write_bytes(content)


def copy(source: Path, target: Path) -> None:
    with atomic_write(target) as aside:
        shutil.copyfile(source, aside)


def check_free_space(folder: Path, wanted_bytes: int) -> None:
    """Refuse to begin what the disk has no room for."""
    needed, free = wanted_bytes + MARGIN_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"expected {needed / 1e6:,.0f} MB free in {folder}, got {free / 1e6:,.0f} MB"
        raise EnvironmentFailure(f"disk: {sizes}; free some or give --store")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, and what is refused in `folder`, into one line that says where."""
    try:
        yield
    except OSError as error:
        refused_here = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(folder)
        if error.errno not in DISK_FULL and not (error.errno in REFUSED and refused_here):
            raise
        advice = "free some" if error.errno in DISK_FULL else "check the disk, and who may write there,"
        raise EnvironmentFailure(f"disk: {error.strerror} in {folder}; {advice} or give another folder") from error
