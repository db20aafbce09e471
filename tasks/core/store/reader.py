"""Reading a store: versions, their manifests, and checked payloads."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import EnvironmentFailure
from tasks.core.store.artifact import ArtifactRef, Key, Manifest
from tasks.core.store.storage import QUARANTINE, RUNS, Storage, manifest_name, parse_json

VERSION = re.compile("[0-9a-f]{12}")  # folders of other names are not the store's


class DamagedArtifact(EnvironmentFailure):
    """Stored bytes are missing, or differ from their manifest."""


@dataclass(frozen=True)
class StoreReader:
    """The artifacts in a folder or a bucket."""

    storage: Storage

    def open(self, ref: ArtifactRef) -> Path:
        """The folder of an artifact's payload, after checking every byte of it."""
        manifest = self.manifest(ref.name, ref.version)
        damage = self.damage(manifest) if manifest else f"{ref} is not in the store {self.storage.location}"
        if manifest and not damage and manifest.sha256 != ref.sha256:
            damage = f"{ref} holds other bytes than expected"
        if damage or not manifest:
            raise DamagedArtifact(str(damage), advice="run again to rebuild it")
        return self.storage.local_folder(self.storage.payload_folder(manifest))

    def artifact_names(self) -> list[str]:
        """The names of the artifacts with at least one version."""
        return [name for name in self.storage.folders("") if name != RUNS]

    def versions(self, name: str) -> list[str]:
        """Every version of an artifact, including those with an unreadable manifest."""
        return [version for version in self.storage.versions(name) if VERSION.fullmatch(version)]

    def quarantined_versions(self, name: str) -> set[str]:
        """The versions of an artifact that were moved to the quarantine as a whole."""
        label = re.compile(rf"{re.escape(name)}-({VERSION.pattern})-[0-9T]+")
        return {match[1] for entry in self.storage.folders(QUARANTINE) if (match := label.fullmatch(entry))}

    def superseded_versions(self, name: str) -> set[str]:
        """The versions of an artifact, present or lost, with a later attempt at the same key."""
        keys = [manifest.key for manifest in self.manifests(name)]
        return {key.with_attempt(earlier).version for key in keys for earlier in range(key.attempt)}

    def manifest(self, name: str, version: str) -> Manifest | None:
        """A version's manifest; None if it is missing or damaged."""
        return _parse_manifest(self.storage.read(manifest_name(name, version)), version)

    def manifest_of(self, ref: ArtifactRef) -> Manifest:
        """The manifest of an artifact that a run names."""
        manifest = self.manifest(ref.name, ref.version)
        if manifest is None:
            raise DamagedArtifact(f"{ref}: its manifest is missing or damaged", advice="run again to rebuild it")
        return manifest

    def manifests(self, name: str) -> list[Manifest]:
        """Every readable manifest of an artifact, oldest first."""
        contents = self.storage.read_all(manifest_name(name, version) for version in self.versions(name))
        manifests = [_parse_manifest(content, path.split("/")[1]) for path, content in contents.items()]
        return sorted((manifest for manifest in manifests if manifest), key=lambda manifest: manifest.made.at)

    def newest(self, key: Key) -> Manifest | None:
        """The latest attempt at a key."""
        version = key.with_attempt(0).version  # not the keys themselves: 1 == 1.0 == True in Python
        attempts = [m for m in self.manifests(key.name) if m.key.with_attempt(0).version == version]
        return max(attempts, key=lambda manifest: manifest.key.attempt, default=None)

    def first_with_same_bytes(self, ref: ArtifactRef) -> Manifest | None:
        """The manifest of the oldest version with the same bytes."""
        return next((manifest for manifest in self.manifests(ref.name) if manifest.sha256 == ref.sha256), None)

    def damage(self, manifest: Manifest) -> str | None:
        """The first problem of a version's payload; None if every byte matches the manifest."""
        first = next(self.find_damage(manifest), None)
        return f"{manifest.ref}: {first[1]}" if first else None

    def find_damage(self, manifest: Manifest, *, rehash: bool = False) -> Iterator[tuple[str, str]]:
        """Each damaged file of a version, with its problem; `rehash` reads even files that did not change."""
        return self.storage.find_damage(self.storage.payload_folder(manifest), manifest.files, rehash=rehash)

    def lock_path(self, name: str) -> Path:
        return self.storage.local / "locks" / f"{name}.lock"


def _parse_manifest(content: bytes | None, version: str) -> Manifest | None:
    manifest = parse_json(Manifest, content)
    return manifest if manifest and manifest.version == version and manifest.is_consistent() else None
