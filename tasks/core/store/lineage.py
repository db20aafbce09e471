"""Lineage: the ancestors of a version, the versions built from it, and the runs that use it."""

from collections.abc import Iterator

from tasks.core.errors import InputError
from tasks.core.frozen_model import FrozenModel
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.store.runs import read_records
from tasks.core.store.store import Store


class Ancestor(FrozenModel):
    """An ancestor of a version, `depth` steps up; `at` is the time of its build, or None if its manifest is lost."""

    depth: int
    ref: ArtifactRef
    at: str | None


class Lineage(FrozenModel):
    """A version, its ancestors up to the archive, the versions built directly from it, and the runs that use it."""

    manifest: Manifest
    made_from: tuple[Ancestor, ...]
    used_for: tuple[ArtifactRef, ...]
    runs: tuple[str, ...]


def find_lineage(store: Store, name: str) -> Lineage:
    """The lineage of `NAME/VERSION`; a unique beginning of VERSION is enough."""
    manifest = _find_version(store, name)
    manifests = [each for artifact in store.artifact_names() for each in store.manifests(artifact)]
    return Lineage(
        manifest=manifest,
        made_from=tuple(_ancestors(store, manifest, depth=1)),
        used_for=tuple(each.ref for each in manifests if manifest.ref in each.inputs),
        runs=tuple(record.run for record in read_records(store) if manifest.ref in record.artifacts.values()),
    )


def _find_version(store: Store, name: str) -> Manifest:
    artifact, _, beginning = name.partition("/")
    known = store.versions(artifact) if beginning and artifact in store.artifact_names() else []
    matches = [version for version in known if version.startswith(beginning)]
    if len(matches) != 1:
        raise InputError(name, expected="NAME/VERSION of one version in the store", got=f"{len(matches)} that match")
    manifest = store.manifest(artifact, matches[0])
    if manifest is None:
        problem = f"{artifact}/{matches[0]}: its manifest is lost or damaged"
        raise InputError(problem, advice="the next run that needs it rebuilds it")
    return manifest


def _ancestors(store: Store, manifest: Manifest, depth: int) -> Iterator[Ancestor]:
    for ref in manifest.inputs:
        parent = store.manifest(ref.name, ref.version)
        yield Ancestor(depth=depth, ref=ref, at=parent.made.at if parent else None)
        if parent:
            yield from _ancestors(store, parent, depth + 1)
