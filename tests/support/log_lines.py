"""The library's log lines, as a list."""

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.runtime.logs import log_handler


@contextmanager
def logged_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    with log_handler(lambda record: lines.append(record.getMessage())):
        yield lines
