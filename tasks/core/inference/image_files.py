"""Finds the image files that the names of files, folders and globs stand for."""

import glob
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime.logs import logger

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
FORMATS = "PNG, JPEG or WebP files"
MAX_NAMES_IN_ERROR = 3

_real_folder = cache(os.path.realpath)


def find_images(names: Sequence[str], *, log_empty: bool = True) -> list[str]:
    """Return the files that the names stand for, each once, and log the names without images.

    A folder stands for the image files in it and its subfolders, sorted, without hidden files and linked folders.
    A file that is named itself or matches a glob is returned whatever its suffix.

    Raises:
        InputError: A name does not exist, or there are no image files at all.
    """
    paths: dict[tuple[str, str], str] = {}
    names_without_images: list[str] = []
    for name in names:
        matches = list(_files(name))
        for path in matches:
            # Two names of one file are equal here; a link to a file is a file of its own.
            paths.setdefault((_real_folder(str(Path(path).parent)), Path(path).name), path)
        if not matches:
            names_without_images.append(name)
    if not paths:
        got = f"none in {', '.join(printable(name) for name in names_without_images[:MAX_NAMES_IN_ERROR])}"
        raise InputError("images", expected=FORMATS, got=got, advice="give other files, folders or globs")
    for name in names_without_images if log_empty else []:
        logger.info(f"predict: no {FORMATS} in {printable(name)}")
    return list(paths.values())


def absolute_name(name: str) -> str:
    """Make the name of a file, folder or glob absolute."""
    is_glob = glob.has_magic(name) and not os.path.lexists(name)
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise InputError("the current folder no longer exists", advice="change to another folder") from None
    return str(Path(glob.escape(here) if is_glob else here) / name)


def printable(path: str) -> str:
    """Return a path on one line, with control characters and invalid bytes escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in as_text(path)
    )


def as_text(path: str) -> str:
    """Return a path as valid text: bytes that are not UTF-8 are written as \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _files(name: str) -> Iterator[str]:
    if name and os.path.lexists(name):  # also a name with brackets, and a broken link
        matches = [name]
    elif glob.has_magic(name):
        matches = sorted(glob.iglob(name, recursive=True))  # noqa: PTH207 - patterns are absolute
    else:
        raise InputError("images", expected="a file, folder or glob", got=f"'{printable(name)}', which does not exist")
    for match in matches:
        yield from _files_in_folder(match) if Path(match).is_dir() else [match]


def _files_in_folder(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield str(Path(parent, name))


def _raise_unreadable(error: OSError) -> NoReturn:
    folder = printable(os.fsdecode(error.filename))
    raise EnvironmentFailure(f"images: {error.strerror}: {folder}", advice="check its permissions") from error
