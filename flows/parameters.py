"""Flow parameters from a settings model: flat, typed, bounded and described, as Prefect's UI and `-p` want them."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from tasks.core.config import Settings, checked_settings
from tasks.core.errors import InputError

Result = TypeVar("Result")


def flat_parameters(sequence: Callable[[Settings], Result]) -> Callable[..., Result]:
    """Give a flow one parameter for each field of `Settings` in place of its single one.

    So `-p epochs=3` works as `--epochs 3` does, and each setting is written down once.
    """

    def flow_function(**parameters: object) -> Result:
        _refuse_relative_paths(parameters)
        return sequence(checked_settings(**parameters))

    described = "\n".join(f"    {name}: {field.description}" for name, field in Settings.model_fields.items())
    flow_function.__name__ = sequence.__name__
    flow_function.__qualname__ = sequence.__qualname__
    flow_function.__module__ = sequence.__module__
    flow_function.__doc__ = f"{inspect.getdoc(sequence)}\n\nArgs:\n{described}\n"
    flow_function.__signature__ = inspect.signature(Settings)  # type: ignore[attr-defined]
    return flow_function


def _refuse_relative_paths(parameters: Mapping[str, object]) -> None:
    """A worker starts runs in folders of its own, where a relative path leads nowhere, or to what is thrown away."""
    for name in ("source", "store"):
        value = parameters.get(name)
        is_path = isinstance(value, str) and value not in ("cifar10", "synthetic") and "://" not in value
        if is_path and not Path(str(value)).expanduser().is_absolute():
            raise InputError(f"{name}: expected an absolute path, got {value!r}")
