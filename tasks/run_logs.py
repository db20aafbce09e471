"""Prefect's log: with the library's log lines, and without tracebacks of expected errors."""

import logging
from contextlib import suppress

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from tasks.core.errors import CifarFlowError
from tasks.core.runtime.logs import logger


class RunLogHandler(logging.Handler):
    """Forward the library's log lines to the logger of the Prefect run, if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(MissingContextError):
            get_run_logger().log(record.levelno, record.getMessage())
            record.is_forwarded = True


logger.handlers.insert(0, RunLogHandler())
logger.setLevel(logging.INFO)
logger.propagate = False  # Prefect's root handler would print each line again


def _without_expected_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], CifarFlowError):
        record.exc_info = None
    return True


# An expected error needs no traceback; Prefect would log it twice.
for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_without_expected_traceback)
