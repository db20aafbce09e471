"""Where predictions are written: a gallery, what cannot be read, and a table of the answers."""

from pathlib import Path

from tasks.core.output import check_output


def files_in(folder: Path) -> tuple[Path, Path, Path]:
    """The gallery, the table of what cannot be read, and that of the answers; InputError where these cannot be."""
    files = folder / "gallery.html", folder / "unreadable.parquet", folder / "predictions.parquet"
    check_output(files)
    return files
