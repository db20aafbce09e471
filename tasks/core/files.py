"""Files that are whole or absent: written aside, synced, then renamed into place."""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.errors import WorldError

MARGIN_BYTES = 50_000_000
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` in one rename when the block ends well."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with disk_errors(path.parent):
            yield aside
            sync(aside)
            aside.replace(path)
            sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sweep(path: Path) -> None:
    """Remove what killed processes left beside `path` in writing it. Nobody else may be writing it now."""
    for aside in path.parent.glob(f".{path.name}.*"):
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    with replacing(path) as aside:
        aside.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def copy(source: Path, target: Path) -> None:
    with replacing(target) as aside:
        shutil.copyfile(source, aside)


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line to a log in a single write, after ending a line that a power cut tore."""
    line = canonical_json(value).encode() + b"\n"
    with disk_errors(path.parent), path.open("a+b") as file:
        if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
            line = b"\n" + line
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def check_space(folder: Path, wanted_bytes: int) -> None:
    """Refuse to begin what the disk has no room for."""
    needed, free = wanted_bytes + MARGIN_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        sizes = f"expected {needed / 1e6:,.0f} MB free in {folder}, got {free / 1e6:,.0f} MB"
        raise WorldError(f"disk: {sizes}; free some or give --store")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, and what is refused in `folder`, into one line that says where."""
    try:
        yield
    except OSError as error:
        refused_here = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(folder)
        if error.errno not in DISK_FULL and not (error.errno in REFUSED and refused_here):
            raise
        raise WorldError(f"disk: {error.strerror} in {folder}; free some or give --store") from error
