"""The command line as a program of its own, which ends without the second and more that freeing everything takes."""

import atexit
import os
import sys
from typing import NoReturn


def start(*command: str) -> NoReturn:
    """Run the command line, after the words of `command` if there are any, and end the process with its exit code."""
    exit_code = 1

    def end() -> None:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(exit_code)

    atexit.register(end)  # before all others, and so after them: Prefect's send logs
    from flows.cli.app import main

    exit_code = main([*command, *sys.argv[1:]])
    raise SystemExit(exit_code)
