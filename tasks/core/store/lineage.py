"""Lineage: what a version was made from, and what was made from it."""

from collections.abc import Iterator

from tasks.core.errors import InputError
from tasks.core.frozen_model import FrozenModel
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.store.runs import read_records
from tasks.core.store.store import Store


class Ancestor(FrozenModel):
    """An artifact that another one was made from, `depth` steps up; `at` is None where its manifest is lost."""

    depth: int
    ref: ArtifactRef
    at: str | None


class Lineage(FrozenModel):
    """A version, what it was made from up to the archive, what was made directly from it, and the runs that have it."""

    manifest: Manifest
    made_from: tuple[Ancestor, ...]
    used_for: tuple[ArtifactRef, ...]
    runs: tuple[str, ...]


def find_lineage(store: Store, name: str) -> Lineage:
    """The lineage of what `NAME/VERSION` means; the beginning of VERSION is enough where only one begins so."""
    manifest = _find_version(store, name)
    everything = [each for artifact in store.artifacts() for each in store.manifests(artifact)]
    return Lineage(
        manifest=manifest,
        made_from=tuple(_ancestors(store, manifest, depth=1)),
        used_for=tuple(each.ref for each in everything if manifest.ref in each.inputs),
        runs=tuple(record.run for record in read_records(store) if manifest.ref in record.artifacts.values()),
    )


def _find_version(store: Store, name: str) -> Manifest:
    artifact, _, beginning = name.partition("/")
    known = store.versions(artifact) if beginning and artifact in store.artifacts() else []
    found = [version for version in known if version.startswith(beginning)]
    if len(found) != 1:
        raise InputError(f"{name}: expected NAME/VERSION of one version in the store, got {len(found)} that begin so")
    manifest = store.manifest(artifact, found[0])
    if manifest is None:
        raise InputError(f"{artifact}/{found[0]}: its manifest is lost or damaged; the next run that needs it heals it")
    return manifest


def _ancestors(store: Store, manifest: Manifest, depth: int) -> Iterator[Ancestor]:
    for ref in manifest.inputs:
        above = store.manifest(ref.name, ref.version)
        yield Ancestor(depth=depth, ref=ref, at=above.made.at if above else None)
        if above:
            yield from _ancestors(store, above, depth + 1)
