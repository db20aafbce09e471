"""Flow parameters from a settings model: flat, typed, bounded and described, as Prefect's UI and `-p` want them."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tasks.core.config import Settings, validate_settings
from tasks.core.errors import InputError
from tasks.core.inference.image_files import absolute_name, as_text, printable

Result = TypeVar("Result")
PATHS = {"source": str, "store": str | None}
MOST_BYTES = 500_000  # Prefect's server takes 524,288 for all parameters of a run


def flat_parameters(sequence: Callable[[Settings], Result]) -> Callable[..., Result]:
    """Give a flow one parameter for each field of `Settings` in place of its single one.

    So `-p epochs=3` works as `--epochs 3` does, and each setting is written down once.
    """

    def flow_function(**parameters: object) -> Result:
        _refuse_relative_paths(parameters)
        return sequence(validate_settings(**parameters))

    described = "\n".join(f"    {name}: {field.description}" for name, field in Settings.model_fields.items())
    flow_function.__name__ = sequence.__name__
    flow_function.__qualname__ = sequence.__qualname__
    flow_function.__module__ = sequence.__module__
    flow_function.__doc__ = f"{inspect.getdoc(sequence)}\n\nArgs:\n{described}\n"
    flow_function.__signature__ = _signature()  # type: ignore[attr-defined]
    return flow_function


def _signature() -> inspect.Signature:
    """That of `Settings`, but with paths as they are given: Prefect would make them absolute before they are seen."""
    settings = inspect.signature(Settings)
    parameters = [
        each.replace(annotation=PATHS.get(each.name, each.annotation)) for each in settings.parameters.values()
    ]
    return settings.replace(parameters=parameters)


def as_parameters(name: str, paths: Sequence[str]) -> list[str]:
    """Paths and globs from a command line as they can be a flow's parameter: absolute, text, and not too many.

    InputError for an empty path, bytes that are not UTF-8, or more than Prefect takes.
    """
    for path in paths:
        if not path or as_text(path) != path:
            raise InputError(f"{name}: expected a name in UTF-8, got '{printable(path)}'; give its folder or rename it")
    absolute = [absolute_name(path) for path in paths]
    size = len(json.dumps(absolute))
    if size > MOST_BYTES:
        raise InputError(
            f"{name}: expected names of {MOST_BYTES:,} bytes at most, got {len(paths):,} names of {size:,}; "
            "give their folder, or a glob in quotes"
        )
    return absolute


def check_absolute(name: str, paths: Iterable[str]) -> None:
    """A worker starts runs in folders of its own, where a relative path leads nowhere, or to what is thrown away."""
    for path in paths:
        if "://" not in path and not Path(path).expanduser().is_absolute():
            raise InputError(f"{name}: expected an absolute path, got {path!r}")


def _refuse_relative_paths(parameters: Mapping[str, object]) -> None:
    for name in PATHS:
        value = parameters.get(name)
        if isinstance(value, str) and value not in ("cifar10", "synthetic"):
            check_absolute(name, [value])
