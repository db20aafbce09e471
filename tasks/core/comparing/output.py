"""Where a comparison is written: a page, and its numbers beside it."""

from pathlib import Path

from tasks.core.errors import InputError

SUFFIX = ".html"


def numbers_beside(page: Path) -> Path:
    """The file for a page's numbers; InputError unless a page can be written there."""
    if page.suffix != SUFFIX or page.is_dir():
        got = f"{'folder' if page.is_dir() else 'name'} {page}"
        raise InputError(f"output: expected a file that ends in {SUFFIX}, got the {got}; give another by --output")
    return page.with_suffix(".json")
