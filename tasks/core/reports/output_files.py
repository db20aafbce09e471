"""The files that a command writes outside the store, at the path of its --output or --html."""

import os
from pathlib import Path

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.store.opening import DESCRIPTION

MAX_NAME_BYTES = 240  # file systems take 255; a file that is being written has a longer name


def comparison_files(page: Path) -> tuple[Path, Path]:
    """Return the page of a comparison and the JSON file next to it, after `check_output`."""
    if page.suffix != ".html":
        raise InputError("--html", expected="a file name that ends in .html", got=str(page))
    files = page, page.with_suffix(".json")
    check_output(*files, option="--html")
    return files


def prediction_files(folder: Path) -> tuple[Path, Path, Path]:
    """Return the gallery and the tables of unreadable files and of predictions, after `check_output`."""
    files = folder / "gallery.html", folder / "unreadable.parquet", folder / "predictions.parquet"
    check_output(*files)
    return files


def check_output(*files: Path, option: str = "--output") -> None:
    """Raise InputError if a name is too long, or if a folder, a file or a store is in the way."""
    advice = f"give another {option}"
    for file in files:
        if (length := len(os.fsencode(file.name))) > MAX_NAME_BYTES:
            raise InputError(option, expected=f"a file name of at most {MAX_NAME_BYTES} bytes", got=f"{length} bytes")
        if os.path.isdir(file):  # noqa: PTH112 - Path.is_dir raises if the name is too long
            raise InputError(option, expected="a file", got=f"the folder {file}", advice=advice)
        if os.path.isfile(file.parent):  # noqa: PTH113
            raise _folder_is_a_file(file.parent, option)
        if os.path.isfile(file.parent / DESCRIPTION):  # noqa: PTH113
            got = f"the store {file.parent}"
            raise InputError(option, expected="a folder outside the store", got=got, advice=advice)


def make_output_folder(folder: Path, option: str = "--output") -> None:
    """Create a folder and its parents if they do not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise _folder_is_a_file(folder, option) from None
    except OSError as error:
        raise EnvironmentFailure(f"{option}: {error.strerror}: {folder}", advice=f"give another {option}") from error


def _folder_is_a_file(path: Path, option: str) -> InputError:
    return InputError(option, expected="a folder", got=f"the file {path}", advice=f"give another {option}")
