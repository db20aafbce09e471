"""Opening a store: made if there is none, its format checked, what killed processes left swept away."""

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core import files
from tasks.core.config import is_bucket
from tasks.core.errors import InputError
from tasks.core.store.bucket import Bucket
from tasks.core.store.folder import Folder
from tasks.core.store.storage import Storage
from tasks.core.store.versions import Store

FORMAT = 1
DESCRIPTION = "store.json"
UNFINISHED_KEPT_S = 30 * 24 * 3600


class NoStore(InputError):
    """There is no store where one must be."""


def open_unsettled(location: Path | str, *, must_exist: bool = False) -> Store:
    """The store at a location, made if there is none; half made versions are swept away, all else stays as it is."""
    storage = Bucket(str(location).rstrip("/")) if is_bucket(str(location)) else Folder(Path(location).absolute())
    store = Store(storage)
    if must_exist and storage.read(DESCRIPTION) is None:
        raise NoStore(f"store {location}: there is none yet; give another one by --store, or make it by `cifar run`")
    try:
        storage.prepare()
        with store.locked("opening", log=lambda _: None):
            _describe(storage)
            for leftover in sorted((storage.local / "staging").glob("*")):
                with suppress(Timeout), FileLock(store.lock_path(leftover.name)).acquire(timeout=0):
                    shutil.rmtree(leftover, ignore_errors=True)
            for given_up in _untouched(storage.local / "unfinished"):
                with suppress(Timeout), FileLock(store.lock_path(given_up.name)).acquire(timeout=0):
                    shutil.rmtree(given_up, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"store {location}: cannot be written ({error.strerror}); give another one by --store"
        ) from None
    return store


def _untouched(unfinished: Path) -> list[Path]:
    """Unfinished work that nobody went on with for weeks."""
    limit = time.time() - UNFINISHED_KEPT_S
    return [folder for folder in unfinished.glob("*") if folder.stat().st_mtime < limit]


def _describe(storage: Storage) -> None:
    """Write down the store's format, or check it."""
    storage.sweep(DESCRIPTION)
    storage.swap(DESCRIPTION, None, files.readable_json({"format": FORMAT}))
    text = (storage.read(DESCRIPTION) or b"").decode(errors="replace")
    try:
        found = json.loads(text)["format"]
    except (ValueError, TypeError, KeyError, IndexError):
        found = text[:40]
    if found != FORMAT:
        raise InputError(
            f"store {storage.location}: expected format {FORMAT}, got {found!r}; use the cifar-flow that made it"
        )
