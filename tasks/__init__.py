"""Prefect tasks, one file a stage, and the public API: `from tasks import open_store`."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.core.api import Run, Store

__all__ = ["Run", "Store", "open_store"]


def open_store(location: Path | str | None = None) -> "Store":
    """Open a store in a folder or at `s3://bucket/prefix`; InputError if there is none.

    Without a location it is that of CIFAR_FLOW_STORE, or the project's artifacts folder.
    """
    from tasks.core.api import open_store  # imports pandas, which importing a task does not need

    return open_store(location)
