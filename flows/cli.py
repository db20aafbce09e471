"""The command line: parsed and checked before Prefect and torch are imported."""

import sys
from collections.abc import Sequence
from typing import Annotated

import cyclopts
from pydantic import ValidationError

from tasks.core.config import Settings, one_line
from tasks.core.errors import ExpectedError, InputError

app = cyclopts.App(
    name="cifar_flow.py",
    help="Train and evaluate an image classifier on CIFAR-10, and leave weights, tables and a report in the store.",
    version_flags=(),
    suppress_keyboard_interrupt=False,
)


@app.default
def run(*, settings: Annotated[Settings, cyclopts.Parameter(name="*")] = Settings()) -> None:  # noqa: B008 - frozen
    from flows.local_server import prefect_server

    with prefect_server() as wait_until_ready:
        from flows.cifar_flow import cifar_flow

        wait_until_ready()
        cifar_flow(**settings.model_dump())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 2 for the user's input, 1 for the world."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except ExpectedError as error:
        return _failed(str(error), error.exit_code)
    except cyclopts.CycloptsError as error:
        reason = one_line(error.__cause__) if isinstance(error.__cause__, ValidationError) else str(error)
        return _failed(f"{reason}; see --help", InputError.exit_code)
    except KeyboardInterrupt:
        return _failed("interrupted; run the same command again to go on", 130)
    return 0


def _failed(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code
