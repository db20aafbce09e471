"""Where a command leaves files that are no artifacts: what its --output names."""

import os
from collections.abc import Iterable
from pathlib import Path

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.store.opening import DESCRIPTION

PAGE_SUFFIX = ".html"
LONGEST_NAME = 240  # file systems take 255, and what is being written has a longer one


def check_output(files: Iterable[Path]) -> None:
    """InputError where a name is too long, or a folder, a file or a store in the way of what is to be written."""
    for file in files:
        if (length := len(os.fsencode(file.name))) > LONGEST_NAME:
            raise InputError(f"output: expected a name of at most {LONGEST_NAME} bytes, got one of {length}")
        if os.path.isdir(file):  # noqa: PTH112 - pathlib's raises where a name is too long
            raise InputError(f"output: expected a file, got the folder {file}; give another by --output")
        if os.path.isfile(file.parent):  # noqa: PTH113
            raise InputError(f"output: expected a folder, got a file: {file.parent}; give another by --output")
        if os.path.isfile(file.parent / DESCRIPTION):  # noqa: PTH113
            raise InputError(f"output: expected a folder of your own, got the store {file.parent}; give another one")


def make_output_folder(folder: Path) -> None:
    """Make a folder unless it is there; InputError if a file is in its way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"output: expected a folder, got a file: {folder}; give another by --output") from None
    except OSError as error:
        raise EnvironmentFailure(f"output: {error.strerror}: {folder}; give another folder by --output") from error


def numbers_file(page: Path) -> Path:
    """The file for a page's numbers; InputError unless a page can be written there."""
    if page.suffix != PAGE_SUFFIX:
        raise InputError(f"output: expected a file that ends in {PAGE_SUFFIX}, got the name {page}; give another one")
    numbers = page.with_suffix(".json")
    check_output([page, numbers])
    return numbers


def prediction_files(folder: Path) -> tuple[Path, Path, Path]:
    """The gallery, the table of what cannot be read, and that of the answers; InputError where these cannot be."""
    files = folder / "gallery.html", folder / "unreadable.parquet", folder / "predictions.parquet"
    check_output(files)
    return files
