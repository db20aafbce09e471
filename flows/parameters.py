"""Flow parameters from the settings model: flat, typed, bounded and described, for Prefect's UI and `-p`."""

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tasks.core.config import Settings, validate_settings
from tasks.core.errors import InputError
from tasks.core.inference.image_files import absolute_name, as_text, printable

Result = TypeVar("Result")
PATHS = {"source": str, "store": str | None}
MOST_BYTES = 500_000  # Prefect's server takes 524,288 for all parameters of a run


def flat_parameters(sequence: Callable[[Settings], Result]) -> Callable[..., Result]:
    """Give a flow one parameter for each field of `Settings`, so that `-p epochs=3` works like `--epochs 3`."""

    def flow_function(**parameters: object) -> Result:
        for name in PATHS:
            value = parameters.get(name)
            if isinstance(value, str) and value not in ("cifar10", "synthetic"):
                check_absolute(name, [value])
        return sequence(validate_settings(**parameters))

    described = "\n".join(f"    {name}: {field.description}" for name, field in Settings.model_fields.items())
    flow_function.__name__ = sequence.__name__
    flow_function.__qualname__ = sequence.__qualname__
    flow_function.__module__ = sequence.__module__
    flow_function.__doc__ = f"{inspect.getdoc(sequence)}\n\nArgs:\n{described}\n"
    # Paths as text: Prefect would make relative ones absolute.
    signature = inspect.signature(Settings)
    texts = [each.replace(annotation=PATHS.get(each.name, each.annotation)) for each in signature.parameters.values()]
    flow_function.__signature__ = signature.replace(parameters=texts)  # type: ignore[attr-defined]
    return flow_function


def as_parameters(name: str, paths: Sequence[str]) -> list[str]:
    """Paths and globs of a command line as a flow's parameter: absolute, UTF-8, and no more than Prefect accepts."""
    for path in paths:
        if not path or as_text(path) != path:
            got = f"'{printable(path)}'"
            raise InputError(name, expected="a name in UTF-8", got=got, advice="give its folder or rename it")
    absolute = [absolute_name(path) for path in paths]
    size = len(json.dumps(absolute))
    if size > MOST_BYTES:
        raise InputError(
            name,
            expected=f"names of at most {MOST_BYTES:,} bytes",
            got=f"{len(paths):,} names of {size:,}",
            advice="give their folder, or a glob in quotes",
        )
    return absolute


def check_absolute(name: str, paths: Iterable[str]) -> None:
    """Refuse relative paths: a worker starts runs in temporary folders."""
    for path in paths:
        if "://" not in path and not Path(path).expanduser().is_absolute():
            raise InputError(name, expected="an absolute path", got=repr(path))
