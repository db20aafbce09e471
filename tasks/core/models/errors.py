"""What goes wrong in the code of a network, in one line that says where."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from tasks.core.errors import CifarFlowError, InputError


@contextmanager
def model_errors(model: str, expected: str, *, only_within: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong, or what did within a module or in the model's own package, into an InputError."""
    try:
        yield
    except CifarFlowError:
        raise
    except Exception as error:
        places = _places(error, model.partition(":")[0].partition(".")[0])
        if only_within and not places and not _places(error, only_within):
            raise
        words, where = str(error).strip().partition("\n")[0], f" ({places[-1]})" if places else ""
        raise InputError(f"model {model}: expected {expected}, got {type(error).__name__}: {words}{where}") from error


def _places(error: Exception, package: str) -> list[str]:
    """The lines of a package or module that led to an error, the last one last."""
    walked = walk_tb(error.__traceback__)
    return [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walked
        if f"{frame.f_globals.get('__name__', '')}.".startswith(f"{package}.")
    ]
