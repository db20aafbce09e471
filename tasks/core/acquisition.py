"""Getting the archive: reused, not needed at all, fetched, or generated in its place."""

from tasks.core.config import Normalization, StageName
from tasks.core.data.downloader import SourceUnavailable, TransferBroken
from tasks.core.data.sources import ARCHIVE, raw_stage
from tasks.core.pipeline import dataset_stage
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Log, Outcome, Stage, content_digest


def acquire_archive(
    store: Store,
    source: str,
    sha256: str | None,
    fallback: str | None,
    log: Log,
    *,
    refresh: StageName | None,
    last_try: bool,
) -> Outcome:
    """The archive that `source` means or, once nothing more is to be hoped for, that of `fallback`."""
    try:
        return _archive(store, source, sha256, log, refresh=refresh)
    except (SourceUnavailable, TransferBroken) as error:
        to_be_continued = isinstance(error, TransferBroken) and not last_try
        if fallback is None or to_be_continued or store.newest(raw_stage(source, sha256, store.downloads).key):
            raise
        log(f"{error}; going on with --offline-fallback {fallback}")
        return _archive(store, fallback, None, log, refresh=None)


def _archive(store: Store, source: str, sha256: str | None, log: Log, *, refresh: StageName | None) -> Outcome:
    stage = raw_stage(source, sha256, store.downloads)
    return at_hand(store, stage, refresh) or store.get_or_create(stage, log, refresh=refresh == "download")


def at_hand(store: Store, stage: Stage, refresh: StageName | None) -> Outcome | None:
    """The archive that nobody reads: it need not be whole, nor there, while the dataset made from it is intact."""
    if refresh in ("download", "normalize"):
        return None
    newest = store.newest(stage.key)
    ref = newest.ref if newest else _ref_by_pin(stage)
    dataset = ref and store.newest(dataset_stage(store, ref, Normalization()).key)
    if not ref or not dataset or store.damage(dataset):
        return None
    return Outcome(ref, True, f"{ref} is not needed: {dataset.ref}, made from it, is intact")


def _ref_by_pin(stage: Stage) -> ArtifactRef | None:
    """The reference that a pinned archive will have, known before its bytes are there."""
    pin = stage.key.settings.get("sha256")
    if not isinstance(pin, str):
        return None
    return ArtifactRef(name="raw", version=stage.key.version, sha256=content_digest({ARCHIVE: pin}))
