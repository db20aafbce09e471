"""Where a command leaves files that are no artifacts: what its --output names."""

from pathlib import Path

from tasks.core.errors import InputError, WorldError


def make_output_folder(folder: Path) -> None:
    """Make a folder unless it is there; InputError if a file is in its way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"output: expected a folder, got a file: {folder}; give another by --output") from None
    except OSError as error:
        raise WorldError(f"output: {error.strerror}: {folder}; give another folder by --output") from error
