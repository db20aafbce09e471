"""What goes wrong in the code of a network, in one line that says where."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from tasks.core.errors import ExpectedError, InputError


@contextmanager
def model_errors(model: str, expected: str, *, only_its_own: bool = False) -> Iterator[None]:
    """Turn whatever goes wrong, or what did in the model's own package, into an InputError."""
    try:
        yield
    except ExpectedError:
        raise
    except Exception as error:
        places = _places(error, model.partition(":")[0].partition(".")[0])
        if only_its_own and not places:
            raise
        words, where = str(error).strip().partition("\n")[0], f" ({places[-1]})" if places else ""
        raise InputError(f"model {model}: expected {expected}, got {type(error).__name__}: {words}{where}") from error


def _places(error: Exception, package: str) -> list[str]:
    """The lines of a package that led to an error, the last one last."""
    walked = walk_tb(error.__traceback__)
    return [
        f"{frame.f_code.co_filename}, line {line}"
        for frame, line in walked
        if frame.f_globals.get("__name__", "").partition(".")[0] == package
    ]
