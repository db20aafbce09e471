"""The library's logger, `cifar_flow`, and where its lines go."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("cifar_flow")


@contextmanager
def log_handler(emit: Callable[[logging.LogRecord], None], *, first: bool = False) -> Iterator[None]:
    """Pass every log record from INFO up to `emit`, before or after the other handlers."""
    handler, level = logging.Handler(), logger.level
    handler.emit = emit  # type: ignore[assignment, method-assign]
    logger.setLevel(logging.INFO)
    logger.handlers.insert(0 if first else len(logger.handlers), handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
