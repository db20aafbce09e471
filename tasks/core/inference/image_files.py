"""Which image files are meant by the names of files, folders and globs."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from tasks.core.errors import EnvironmentFailure, InputError

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}
MOST_NAMED = 3


def find_images(names: Sequence[str], log: Callable[[str], None]) -> list[str]:
    """The files that names mean, each once, in the order of the names, and sorted within a folder or glob.

    A folder stands for the files in it and below that have an image's suffix; hidden ones are left out, and folders
    behind links are not entered. A file that is named itself, or matched by a glob, is taken whatever its suffix.
    InputError if there is nothing of a name, or no image at all.
    """
    found: dict[tuple[str, str], str] = {}
    fruitless: list[str] = []
    for name in names:
        meant = list(_meant(name))
        for path in meant:
            found.setdefault(_place(path), path)
        if not meant:
            fruitless.append(f"images: expected PNG, JPEG or WebP files in {printable(name)}, got none")
    if not found:
        raise InputError("; ".join(fruitless[:MOST_NAMED]) + "; give other files, folders or globs")
    for line in fruitless:
        log(line)
    return list(found.values())


def absolute_name(name: str) -> str:
    """A name of a file, folder or glob as it means the same from every folder."""
    is_glob = glob.has_magic(name) and not os.path.lexists(name)
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise InputError("the current folder is not there any more; change to another one") from None
    return str(Path(glob.escape(here) if is_glob else here) / name)


def printable(path: str) -> str:
    """A path on one line, with what a terminal would act upon, and bytes that are no text, escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in as_text(path)
    )


def as_text(path: str) -> str:
    """A path as text that every table and page can hold: bytes that are not UTF-8 are spelt \\xff."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _meant(name: str) -> Iterator[str]:
    if name and os.path.lexists(name):  # also a name with brackets, and a link that leads nowhere
        yield from _files_of(name)
    elif glob.has_magic(name):
        for match in sorted(glob.iglob(name, recursive=True)):  # noqa: PTH207 - patterns are absolute
            yield from _files_of(match)
    else:
        raise InputError(f"images: expected a file, folder or glob, got '{printable(name)}', which is not there")


def _files_of(name: str) -> Iterator[str]:
    return _in_folder(name) if Path(name).is_dir() else iter([name])


def _in_folder(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield str(Path(parent, name))


def _refuse(error: OSError) -> NoReturn:
    folder = printable(os.fsdecode(error.filename))
    raise EnvironmentFailure(
        f"images: expected to list {folder}, got: {error.strerror}; check who may read it"
    ) from error


def _place(path: str) -> tuple[str, str]:
    """What two names of one file have in common; a link to a file is a file of its own."""
    return _real_folder(str(Path(path).parent)), Path(path).name


@cache
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
