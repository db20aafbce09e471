"""Verification: every byte of a store against what its manifests, records and current run say."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import WorldError
from tasks.core.store.current import ROOT_FILES, read_current, torn_lines
from tasks.core.store.runs import read_record, run_ids
from tasks.core.store.versions import Store

AT_NEXT_RUN = "the next run that needs it makes it anew"
AS_CURRENT = "run again with its settings, or promote another run"
AT_OPENING = "the next run puts it right"


class Finding(BaseModel):
    """Something that is not as it was stored; `known` is what was found, set aside and replaced before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wrong: str
    advice: str
    known: bool = False


def verify(store: Store) -> Iterator[tuple[str, list[Finding]]]:
    """Check a store piece by piece: the name of each piece, and what is wrong with it."""
    for name in store.artifacts():
        for version in store.versions(name):
            yield f"{name}/{version}", list(_version(store, name, version))
    for run in run_ids(store):
        yield f"run {run}", list(_run(store, run))
    yield "current run", list(_current(store))


def _version(store: Store, name: str, version: str) -> Iterator[Finding]:
    manifest = store.manifest(name, version)
    if manifest is None:
        yield Finding(wrong=f"{name}/{version}: its manifest is lost or damaged", advice=AT_NEXT_RUN)
        return
    for _, words in store.damaged_files(manifest, anew=True):
        yield Finding(wrong=f"{manifest.ref}: {words}", advice=AT_NEXT_RUN)


def _run(store: Store, run: str) -> Iterator[Finding]:
    record = read_record(store, run)
    if record is None:
        yield Finding(wrong=f"run {run}: its record cannot be read", advice="restore runs/ from a backup, or delete it")
        return
    for ref in record.artifacts.values() if not record.collected else ():
        manifest = store.manifest(ref.name, ref.version)
        if manifest is None and ref.version not in store.versions(ref.name):
            known = ref.version in store.set_aside(ref.name)
            wrong = f"run {run}: its {ref} {'was damaged and set aside' if known else 'is not in the store'}"
            yield Finding(wrong=wrong, advice="run again with its settings", known=known)
        elif manifest and manifest.sha256 != ref.sha256:
            yield Finding(wrong=f"run {run}: its {ref} holds other bytes now", advice="run again with its settings")


def _current(store: Store) -> Iterator[Finding]:
    if lines := torn_lines(store):
        yield Finding(wrong=f"promotions.jsonl: {lines} lines cannot be read", advice="the others still count")
    try:
        current = read_current(store)
    except WorldError as error:
        yield Finding(wrong=str(error).partition(";")[0], advice="delete it to promote anew")
        return
    if current is None:
        return
    if current.run not in run_ids(store):
        yield Finding(wrong=f"run {current.run}: the current run has no record", advice=AS_CURRENT)
    for artifact in sorted(set(ROOT_FILES.values())):
        ref = current.artifacts[artifact]
        manifest = store.manifest(ref.name, ref.version)
        if manifest is None:
            yield Finding(wrong=f"run {current.run}: the current run's {ref} is lost", advice=AS_CURRENT)
            continue
        wanted = {name: manifest.files[name] for name, each in ROOT_FILES.items() if each == artifact}
        for _, words in store.storage.damaged("", wanted, anew=True):
            yield Finding(wrong=f"at the root: {words}", advice=AT_OPENING)
