"""Where a comparison is written: a page, and its numbers beside it."""

from pathlib import Path

from tasks.core.errors import InputError
from tasks.core.output import check_output

SUFFIX = ".html"


def numbers_beside(page: Path) -> Path:
    """The file for a page's numbers; InputError unless a page can be written there."""
    if page.suffix != SUFFIX:
        raise InputError(f"output: expected a file that ends in {SUFFIX}, got the name {page}; give another one")
    numbers = page.with_suffix(".json")
    check_output([page, numbers])
    return numbers
