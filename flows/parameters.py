"""Flow parameters from a settings model: flat, typed, bounded and described, as Prefect's UI and `-p` want them."""

import inspect
from collections.abc import Callable
from typing import TypeVar

from tasks.core.config import Settings, checked_settings

Result = TypeVar("Result")


def flat_parameters(sequence: Callable[[Settings], Result]) -> Callable[..., Result]:
    """Give a flow one parameter for each field of `Settings` in place of its single one.

    So `-p epochs=3` works as `--epochs 3` does, and each setting is written down once.
    """

    def flow_function(**parameters: object) -> Result:
        return sequence(checked_settings(**parameters))

    described = "\n".join(f"    {name}: {field.description}" for name, field in Settings.model_fields.items())
    flow_function.__name__ = sequence.__name__
    flow_function.__qualname__ = sequence.__qualname__
    flow_function.__module__ = sequence.__module__
    flow_function.__doc__ = f"{inspect.getdoc(sequence)}\n\nArgs:\n{described}\n"
    flow_function.__signature__ = inspect.signature(Settings)  # type: ignore[attr-defined]
    return flow_function
