"""Runs the command line, and turns errors into one line and an exit code."""

import atexit
import errno
import io
import os
import sys
from collections.abc import Sequence
from logging import LogRecord
from typing import NoReturn

import cyclopts
from pydantic import ValidationError

from flows.cli.app import app
from tasks.core.config import format_validation_error
from tasks.core.errors import CifarFlowError, EnvironmentFailure, InputError
from tasks.core.runtime.logs import log_handler

INTERRUPTED = 130  # as a shell reports SIGINT
CLOSED_PIPE = 141  # as a shell reports SIGPIPE


def start() -> NoReturn:
    """Run the command in `sys.argv`, and exit without the second that Python takes to free all objects."""
    exit_code = 1

    def exit_now() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(exit_code)

    atexit.register(exit_now)  # the first to be registered runs last: Prefect still sends its logs
    exit_code = main(sys.argv[1:])
    raise SystemExit(exit_code)


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 2 for wrong input, 1 for an environment error."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # for characters that the terminal's encoding does not have
    try:
        with log_handler(_print_log_line):
            exit_code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CifarFlowError as error:
        return _fail(str(error), error.exit_code)
    except cyclopts.CycloptsError as error:
        return _fail(f"{_describe(error)}; see --help", InputError.exit_code)
    except BrokenPipeError:  # the reader, such as `head`, has read enough
        _discard_output()
        return CLOSED_PIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO) or error.filename is not None:
            raise
        _discard_output()
        return _fail(f"stdout: {error.strerror}; write it to another place", EnvironmentFailure.exit_code)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command again to resume", INTERRUPTED)
    return exit_code or 0


def _describe(error: cyclopts.CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        return format_validation_error(error.__cause__)
    text = str(error)
    return text if text.endswith("...") else text.removesuffix(".")


def _print_log_line(record: LogRecord) -> None:
    if not hasattr(record, "is_forwarded"):  # Prefect prints the lines of its runs
        print(record.getMessage(), file=sys.stderr)


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code
