"""Opening a store: made if there is none, its format checked, what killed processes left swept away."""

import json
import shutil
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.core.config import is_bucket
from tasks.core.errors import InputError
from tasks.core.runtime import files
from tasks.core.store.artifact import Log
from tasks.core.store.bucket import Bucket
from tasks.core.store.folder import Folder
from tasks.core.store.storage import CURRENT, LOG, ROOT_FILES, Storage
from tasks.core.store.store import Store

FORMAT = 1
DESCRIPTION = "store.json"
UNFINISHED_KEPT_S = 30 * 24 * 3600


class NoStore(InputError):
    """There is no store where one must be."""


def open_without_repair(location: Path | str, log: Log, *, must_exist: bool = False) -> Store:
    """The store at a location, made if there is none; half made versions are swept away, all else stays as it is.

    InputError if it must exist and does not, or where it would be made among files that are not its own.
    """
    storage = Bucket(str(location).rstrip("/")) if is_bucket(str(location)) else Folder(Path(location).absolute())
    store = Store(storage)
    try:
        if storage.read(DESCRIPTION) is None:
            _look_around(storage, log, must_exist=must_exist)
        storage.prepare()
        with store.locked("opening", log=lambda _: None):
            _describe(storage)
            for leftover in sorted((storage.local / "staging").glob("*")):
                with suppress(Timeout), FileLock(store.lock_path(leftover.name)).acquire(timeout=0):
                    shutil.rmtree(leftover, ignore_errors=True)
            for rolled_back_run in _untouched(storage.local / "unfinished"):
                with suppress(Timeout), FileLock(store.lock_path(rolled_back_run.name)).acquire(timeout=0):
                    shutil.rmtree(rolled_back_run, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"store {location}: cannot be written ({error.strerror}); give another one by --store"
        ) from None
    return store


def _look_around(storage: Storage, log: Log, *, must_exist: bool) -> None:
    """What a place without a description holds: a store that has lost it, nothing, or somebody's own files."""
    there = set(storage.names(""))
    if there & {CURRENT, LOG}:
        log(f"{DESCRIPTION} was missing in {storage.location}, and is made anew; check the disk")
        return
    if must_exist:
        raise NoStore(
            f"store {storage.location}: there is none yet; give another one by --store, or make it by `cifar run`"
        )
    if taken := sorted(there & ROOT_FILES.keys()):
        raise InputError(
            f"store {storage.location}: expected a store or a folder to make one in, got one with a {taken[0]} that is "
            "no run's; give another one by --store"
        )


def _untouched(unfinished: Path) -> list[Path]:
    """Unfinished work that nobody went on with for weeks."""
    limit = time.time() - UNFINISHED_KEPT_S
    return [folder for folder in unfinished.glob("*") if folder.stat().st_mtime < limit]


def _describe(storage: Storage) -> None:
    """Write down the store's format, or check it."""
    storage.sweep(DESCRIPTION)
    storage.swap(DESCRIPTION, None, files.pretty_json({"format": FORMAT}))
    text = (storage.read(DESCRIPTION) or b"").decode(errors="replace")
    try:
        found = json.loads(text)["format"]
    except (ValueError, TypeError, KeyError, IndexError):
        found = text[:40]
    if found != FORMAT:
        raise InputError(
            f"store {storage.location}: expected format {FORMAT}, got {found!r}; use the cifar-flow that made it"
        )
