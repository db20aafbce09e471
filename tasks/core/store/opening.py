"""Opening a store: create it, check its format, remove what killed processes left."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, JsonValue

from tasks.core.config import is_bucket
from tasks.core.errors import InputError
from tasks.core.runtime import files
from tasks.core.runtime.logs import logger
from tasks.core.store.bucket import Bucket
from tasks.core.store.folder import Folder
from tasks.core.store.storage import CURRENT, LOG, ROOT_FILES, Storage, parse_json
from tasks.core.store.store import Store

FORMAT = 1
DESCRIPTION = "store.json"
WORK_KEPT_S = 30 * 24 * 3600
OTHER_STORE = "give another one by --store"


class _Description(BaseModel):
    format: JsonValue


class NoStore(InputError):
    """A store that must exist does not."""


def open_without_repair(location: Path | str, *, must_exist: bool = False) -> Store:
    """The store at a location, created if there is none; leftover staging folders are removed, nothing else changes.

    Raises:
        InputError: It must exist and does not, or it would be created among files that are not a store's.
    """
    storage = Bucket(str(location).rstrip("/")) if is_bucket(str(location)) else Folder(str(Path(location).absolute()))
    store = Store(storage)
    try:
        if storage.read(DESCRIPTION) is None:
            _check_place(storage, must_exist=must_exist)
        storage.prepare()
        with store.lock("opening"):
            _check_format(storage)
            _remove_leftovers(store)
    except OSError as error:
        raise InputError(f"store {location}: cannot be written ({error.strerror})", advice=OTHER_STORE) from None
    return store


def _check_place(storage: Storage, *, must_exist: bool) -> None:
    """Refuse to create a store over a user's own files; a store that only lost its description is accepted."""
    names = set(storage.names(""))
    if names & {CURRENT, LOG}:
        logger.info(f"store: restored {DESCRIPTION}, which was missing in {storage.location}; check the disk")
        return
    if must_exist:
        advice = f"{OTHER_STORE}, or create it by `cifar run`"
        raise NoStore(f"store {storage.location}: there is none yet", advice=advice)
    if taken := sorted(names & ROOT_FILES.keys()):
        raise InputError(
            f"store {storage.location}",
            expected="a store or a folder to create one in",
            got=f"one with a {taken[0]} that does not belong to a run",
            advice=OTHER_STORE,
        )


def _check_format(storage: Storage) -> None:
    storage.remove_partial_writes(DESCRIPTION)
    storage.compare_and_swap(DESCRIPTION, None, files.pretty_json({"format": FORMAT}))
    description = parse_json(_Description, storage.read(DESCRIPTION))
    if description is None or description.format != FORMAT:
        raise InputError(
            f"store {storage.location}",
            expected=f"format {FORMAT}",
            got=str(description.format if description else f"an unreadable {DESCRIPTION}"),
            advice="use the cifar-flow that created it",
        )


def _remove_leftovers(store: Store) -> None:
    """Remove staging folders of killed processes, and work folders that no build continued for weeks."""
    oldest = time.time() - WORK_KEPT_S
    work = [folder for folder in (store.storage.local / "unfinished").glob("*") if folder.stat().st_mtime < oldest]
    for folder in [*sorted((store.storage.local / "staging").glob("*")), *work]:
        with suppress(Timeout), FileLock(store.lock_path(folder.name)).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
