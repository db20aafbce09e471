"""Errors in a network's code, as one line with the place in the code."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from tasks.core.errors import CifarFlowError, InputError


@contextmanager
def model_errors(model: str, expected: str, *, only_within: str | None = None) -> Iterator[None]:
    """Turn any error into an InputError; with `only_within`, an error from that module or the model's package."""
    try:
        yield
    except CifarFlowError:
        raise
    except Exception as error:
        lines = _lines_in(error, model.partition(":")[0].partition(".")[0])
        if only_within and not lines and not _lines_in(error, only_within):
            raise
        message, place = str(error).strip().partition("\n")[0], f" ({lines[-1]})" if lines else ""
        got = f"{type(error).__name__}: {message}{place}"
        raise InputError(f"model {model}", expected=expected, got=got) from error


def _lines_in(error: Exception, package: str) -> list[str]:
    return [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walk_tb(error.__traceback__)
        if f"{frame.f_globals.get('__name__', '')}.".startswith(f"{package}.")
    ]
