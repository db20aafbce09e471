"""Versions of artifacts: reuse, publish, verify, heal."""

import platform
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, JsonValue, ValidationError

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime import files
from tasks.core.runtime.environment import versions
from tasks.core.store.artifact import (
    ArtifactRef,
    FileFacts,
    Key,
    Log,
    Manifest,
    Outcome,
    Provenance,
    Stage,
    content_digest,
    explain_miss,
)
from tasks.core.store.storage import CURRENT, MANIFEST, QUARANTINE, Storage

RUNS = "runs"
VERSION = re.compile("[0-9a-f]{12}")  # whatever else lies in a store is somebody's own


class DamagedArtifact(EnvironmentFailure):
    """Stored bytes are missing, or not those of their manifest."""


class _Naming(BaseModel):
    """What a run record and `current.json` have in common: the versions that they name."""

    artifacts: dict[str, ArtifactRef]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Store:
    """Artifacts in a folder or a bucket, opened on behalf of the run named `run`."""

    storage: Storage
    run: str | None = None

    @property
    def downloads(self) -> Path:
        """Where unfinished downloads wait for the next try."""
        return self.storage.local / "downloads"

    def unfinished(self, key: Key) -> Path:
        """Where what makes a version keeps its unfinished work, for the next try after a kill; on this machine only."""
        return self.storage.local / "unfinished" / f"{key.name}-{key.version}"

    def for_run(self, run: str) -> "Store":
        return replace(self, run=run)

    def get_or_create(self, stage: Stage, log: Log, *, refresh: bool = False) -> Outcome:
        """The newest intact version of a stage's artifact; made now if there is none, or if `refresh` asks for it."""
        key = stage.key
        with self.locked(f"{key.name}-{key.version}", log):
            newest = self.newest(key)
            damage = self.damage(newest) if newest else None
            reason = self.why(stage, newest, damage, refresh=refresh)
            if newest and not reason:
                return Outcome(newest.ref, True, f"reused {newest.ref}")
            log(f"{stage.task or key.name} {reason}")
            with files.disk_errors(self.storage.local.parent):
                made, seconds = self._make(stage, newest, to_heal=newest if damage else None, log=log)
            shutil.rmtree(self.unfinished(key), ignore_errors=True)
            return Outcome(made.ref, False, f"made {made.ref} in {seconds:.1f} s")

    def why(self, stage: Stage, newest: Manifest | None, damage: str | None, *, refresh: bool) -> str | None:
        """Why a stage's artifact has to be made, in words; None if its newest version is to be reused."""
        there = set(self.versions(stage.key.name))
        later = _next_attempt(stage.key, newest, self.set_aside(stage.key.name) - there)
        if later.version in there and not self.manifest(later.name, later.version):
            return f"runs again: {later.name}/{later.version}: its manifest is lost or damaged"
        if newest is None:
            reason = explain_miss(stage.key, self.manifests(stage.key.name))
            return f"runs again: {reason}" if reason else "runs for the first time"
        if damage or refresh:
            return f"runs again: {damage or f'asked for, in place of {newest.ref}'}"
        return None

    def open(self, ref: ArtifactRef) -> Path:
        """The folder of an artifact's payload, after checking every byte of it."""
        manifest = self.manifest(ref.name, ref.version)
        damage = self.damage(manifest) if manifest else f"{ref} is not in the store {self.storage.location}"
        if manifest and not damage and manifest.sha256 != ref.sha256:
            damage = f"{ref} holds other bytes than those asked for"
        if damage or not manifest:
            raise DamagedArtifact(f"{damage}; run again to have it made anew")
        return self.storage.get(self.storage.payload(manifest))

    def artifacts(self) -> list[str]:
        """The names of the artifacts that there are versions of."""
        return [name for name in self.storage.folders("") if name != RUNS]

    def versions(self, name: str) -> list[str]:
        """Every version of an artifact, those included whose manifest cannot be read."""
        return [version for version in self.storage.versions(name) if VERSION.fullmatch(version)]

    def set_aside(self, name: str) -> set[str]:
        """The versions of an artifact that were found damaged, as far as the quarantine still has them."""
        label = re.compile(rf"{re.escape(name)}-({VERSION.pattern})-[0-9T]+")
        return {found[1] for entry in self.storage.folders(QUARANTINE) if (found := label.fullmatch(entry))}

    def superseded_versions(self, name: str) -> set[str]:
        """The versions of an artifact, there or lost, in whose place a later attempt at the same key stands."""
        keys = [manifest.key for manifest in self.manifests(name)]
        return {key.with_attempt(earlier).version for key in keys for earlier in range(key.attempt)}

    def manifest(self, name: str, version: str) -> Manifest | None:
        """A version's manifest, or None where there is none that holds together."""
        return _parsed(self.storage.read(_manifest_name(name, version)), version)

    def manifests(self, name: str) -> list[Manifest]:
        """Every version of an artifact, oldest first."""
        found = self.storage.read_all(_manifest_name(name, version) for version in self.versions(name))
        manifests = [_parsed(content, path.split("/")[1]) for path, content in found.items()]
        return sorted((manifest for manifest in manifests if manifest), key=lambda manifest: manifest.made.at)

    def newest(self, key: Key) -> Manifest | None:
        """The latest attempt at a key."""
        version = key.with_attempt(0).version  # by digest: Python calls 1, 1.0 and True equal
        attempts = [m for m in self.manifests(key.name) if m.key.with_attempt(0).version == version]
        return max(attempts, key=lambda manifest: manifest.key.attempt, default=None)

    def first_with_same_bytes(self, ref: ArtifactRef) -> Manifest | None:
        """The manifest of the oldest version with the same bytes."""
        return next((manifest for manifest in self.manifests(ref.name) if manifest.sha256 == ref.sha256), None)

    def damage(self, manifest: Manifest) -> str | None:
        """What is wrong with a version's payload, in words; None when every byte is as the manifest says."""
        found = next(self.find_damage(manifest), None)
        return f"{manifest.ref}: {found[1]}" if found else None

    def find_damage(self, manifest: Manifest, *, anew: bool = False) -> Iterator[tuple[str, str]]:
        """Each damaged file of a version, and what is wrong with it; `anew` trusts no earlier check."""
        return self.storage.find_damage(self.storage.payload(manifest), manifest.files, anew=anew)

    def append(self, name: str, value: JsonValue) -> None:
        """Add a line of JSON to a log, unless it is there already, after ending a line that was torn."""
        line, there = files.canonical_json(value).encode(), False
        while not there:
            before = self.storage.read(name)
            lines = (before or b"").split(b"\n")
            end = b"\n" if lines[-1] else b""
            there = line in lines or self.storage.swap(name, before, (before or b"") + end + line + b"\n")

    @contextmanager
    def locked(self, name: str, log: Log) -> Iterator[None]:
        """Hold a kernel lock, which ends with its process however that ends; say so when another one holds it."""
        lock = FileLock(self.lock_path(name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"waiting for another run, which works on {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def lock_path(self, name: str) -> Path:
        return self.storage.local / "locks" / f"{name}.lock"

    def _make(
        self, stage: Stage, newest: Manifest | None, *, to_heal: Manifest | None, log: Log
    ) -> tuple[Manifest, float]:
        staging = self.storage.local / "staging" / f"{stage.key.name}-{stage.key.version}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            started = time.perf_counter()
            stage.build(staging, log)
            seconds = time.perf_counter() - started
            payload = {
                path.name: FileFacts(bytes=path.stat().st_size, sha256=files.sha256_of(path))
                for path in sorted(staging.iterdir())
            }
            sha256 = content_digest({name: facts.sha256 for name, facts in payload.items()})
            there = set(self.versions(stage.key.name))  # before asking: what comes later is not taken for a leftover
            if self.storage.shared and (theirs := self._newer_elsewhere(stage.key, newest, damaged=bool(to_heal))):
                log(f"{theirs.ref} was made by another machine meanwhile, and is used")
                return theirs, seconds
            if to_heal and sha256 == to_heal.sha256 and self._heal(to_heal, staging):
                return to_heal, seconds
            key = self._free_attempt(stage.key, newest, sha256, there)
            manifest = Manifest(
                name=key.name,
                version=key.version,
                sha256=sha256,
                key=key,
                inputs=stage.inputs,
                files=payload,
                made=self._provenance(stage, seconds),
            )
            if to_heal:
                self.storage.set_aside(f"{to_heal.name}/{to_heal.version}", str(to_heal.ref))
            manifest = self._publish(manifest, staging, log)
            return manifest, seconds
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _free_attempt(self, key: Key, newest: Manifest | None, sha256: str, there: set[str]) -> Key:
        """The key at the first attempt after the newest that never had other bytes.

        Of the versions `there`, what stands for one up to that has no manifest to vouch for it, and is set aside.
        """
        named = self._named(key.name)
        other = {ref.version for ref in named if ref.sha256 != sha256}
        same = {ref.version for ref in named} - other
        free = _next_attempt(key, newest, (there | self.set_aside(key.name)) - same | other)
        first = newest.key.attempt + 1 if newest else 0
        for version in there.intersection(key.with_attempt(each).version for each in range(first, free.attempt + 1)):
            if not self.manifest(key.name, version):  # another machine may have put it back
                self.storage.set_aside(f"{key.name}/{version}", f"{key.name}/{version}")
        return free

    def _named(self, name: str) -> set[ArtifactRef]:
        """The versions of an artifact, there or lost, that runs or the current one have, with their content."""
        names = [CURRENT, *(f"{RUNS}/{record}" for record in self.storage.names(RUNS))]
        named: set[ArtifactRef] = set()
        for content in self.storage.read_all(names).values():
            with suppress(ValidationError):
                ref = _Naming.model_validate_json(content).artifacts.get(name)
                named |= {ref} if ref else set()
        return named

    def _newer_elsewhere(self, key: Key, newest: Manifest | None, *, damaged: bool) -> Manifest | None:
        """A later attempt than the newest one that was there before, or that one if it is damaged no more."""
        now_newest = self.newest(key)
        if now_newest and newest and now_newest.key.attempt <= newest.key.attempt:
            return now_newest if damaged and now_newest == newest and not self.damage(newest) else None
        return now_newest

    def _provenance(self, stage: Stage, seconds: float) -> Provenance:
        return Provenance(
            at=now(),
            seconds=round(seconds, 3),
            run=self.run,
            host=platform.node(),
            device=stage.device,
            versions=versions(),
        )

    def _publish(self, manifest: Manifest, staging: Path, log: Log) -> Manifest:
        """Publish a version; if another machine was quicker, its version is the one."""
        content = files.pretty_json(manifest.model_dump(mode="json"))
        if self.storage.publish(manifest, content, staging):
            return manifest
        theirs = self.manifest(manifest.name, manifest.version)
        if theirs is None:
            raise EnvironmentFailure(f"{manifest.ref}: another machine is making it in a way of its own; run again")
        log(f"{theirs.ref} was made by another machine meanwhile, and is used")
        return theirs

    def _heal(self, manifest: Manifest, staging: Path) -> bool:
        """Put the same bytes back, file by file; until the last one is there the version stays known as damaged.

        False if another machine has set the version aside meanwhile.
        """
        folder = self.storage.payload(manifest)
        for name, _ in list(self.find_damage(manifest)):
            self.storage.sweep(f"{folder}/{name}")
            self.storage.set_aside(f"{folder}/{name}", f"{manifest.ref}-{name}")
            self.storage.put(f"{folder}/{name}", staging / name)
        return self.manifest(manifest.name, manifest.version) is not None


def _next_attempt(key: Key, newest: Manifest | None, taken: Collection[str]) -> Key:
    """The key at the first attempt after the newest whose version is not taken."""
    attempts = (key.with_attempt(number) for number in count(newest.key.attempt + 1 if newest else 0))
    return next(attempt for attempt in attempts if attempt.version not in taken)


def _manifest_name(name: str, version: str) -> str:
    return f"{name}/{version}/{MANIFEST}"


def _parsed(content: bytes | None, version: str) -> Manifest | None:
    with suppress(ValidationError):
        manifest = Manifest.model_validate_json(content or b"")
        return manifest if manifest.ref.version == version and manifest.is_consistent() else None
    return None
