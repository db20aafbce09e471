"""Versioned artifacts in a folder: reuse, publish, verify, heal.

A version is the digest of its key. It is there whole or not at all, and never changes its bytes.
"""

import json
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError

from tasks.core import files
from tasks.core.artifact import (
    ArtifactRef,
    FileFacts,
    Key,
    Log,
    Manifest,
    Outcome,
    Provenance,
    Stage,
    content_digest,
    why_made,
)
from tasks.core.environment import versions
from tasks.core.errors import InputError, WorldError

FORMAT = 1
MANIFEST = "manifest.json"


class DamagedArtifact(WorldError):
    """Stored bytes are missing, or not those of their manifest."""


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Store:
    """A folder of artifacts, opened on behalf of the run named `run`."""

    root: Path
    run: str | None = None

    @property
    def work(self) -> Path:
        return self.root / ".work"

    def for_run(self, run: str) -> "Store":
        return replace(self, run=run)

    def get_or_create(self, stage: Stage, log: Log, *, refresh: bool = False) -> Outcome:
        """The newest intact version of a stage's artifact; made now if there is none, or if `refresh` asks for it."""
        key = stage.key
        with self.locked(f"{key.name}-{key.version}", log):
            newest = self.newest(key)
            damage = newest and self.damage(newest)
            if newest and not damage and not refresh:
                return Outcome(newest.ref, True, f"reused {newest.ref}")
            if newest:
                log(f"{key.name} is made again: {damage or f'asked for, in place of {newest.ref}'}")
            else:
                log(f"{key.name} is made: {why_made(key, self.manifests(key.name))}")
            with files.disk_errors(self.root):
                made, seconds = self._make(stage, newest, to_heal=newest if damage else None, log=log)
            return Outcome(made.ref, False, f"made {made.ref} in {seconds:.1f} s")

    def open(self, ref: ArtifactRef) -> Path:
        """The folder of an artifact's payload, after checking every byte of it."""
        manifest = self.manifest(ref.name, ref.version)
        damage = self.damage(manifest) if manifest else f"{ref} is not in the store {self.root}"
        if manifest and not damage and manifest.sha256 != ref.sha256:
            damage = f"{ref} holds other bytes than those asked for"
        if damage:
            raise DamagedArtifact(f"{damage}; run again to have it made anew")
        return self.folder(ref.name, ref.version)

    def folder(self, name: str, version: str) -> Path:
        return self.root / name / version

    def manifest(self, name: str, version: str) -> Manifest | None:
        """A version's manifest, or None where there is none that holds together."""
        try:
            text = (self.folder(name, version) / MANIFEST).read_text(encoding="utf-8")
            manifest = Manifest.model_validate_json(text)
        except (FileNotFoundError, NotADirectoryError, ValidationError, UnicodeDecodeError):
            return None
        return manifest if manifest.ref.version == version and manifest.holds_together() else None

    def manifests(self, name: str) -> list[Manifest]:
        """Every version of an artifact, oldest first."""
        versions = [path.parent.name for path in self.root.glob(f"{name}/*/{MANIFEST}")]
        found = [manifest for version in versions if (manifest := self.manifest(name, version))]
        return sorted(found, key=lambda manifest: manifest.made.at)

    def newest(self, key: Key) -> Manifest | None:
        """The latest attempt at a key."""
        version = key.at_attempt(0).version  # by digest: Python calls 1, 1.0 and True equal
        attempts = [m for m in self.manifests(key.name) if m.key.at_attempt(0).version == version]
        return max(attempts, key=lambda manifest: manifest.key.attempt, default=None)

    def first_made(self, ref: ArtifactRef) -> Manifest | None:
        """The manifest of the oldest version with the same bytes."""
        return next((manifest for manifest in self.manifests(ref.name) if manifest.sha256 == ref.sha256), None)

    def damage(self, manifest: Manifest) -> str | None:
        """What is wrong with a version's payload, in words; None when every byte is as the manifest says."""
        return next(self._damaged_files(manifest), (None, None))[1]

    def _damaged_files(self, manifest: Manifest) -> Iterator[tuple[str, str]]:
        for name, facts in manifest.files.items():
            path = self.folder(manifest.name, manifest.version) / name
            if not path.is_file():
                yield name, f"{manifest.ref}: {name} is missing"
            elif files.sha256_of(path) != facts.sha256:
                size = path.stat().st_size
                found = (
                    f"expected {facts.bytes:,} bytes, got {size:,}"
                    if size != facts.bytes
                    else "its bytes are not those that were stored"
                )
                yield name, f"{manifest.ref}: {name} is damaged: {found}"

    @contextmanager
    def locked(self, name: str, log: Log) -> Iterator[None]:
        """Hold a kernel lock, which ends with its process however that ends; say so when another one holds it."""
        lock = FileLock(self.work / "locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log(f"waiting for another run, which works on {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _make(
        self, stage: Stage, newest: Manifest | None, *, to_heal: Manifest | None, log: Log
    ) -> tuple[Manifest, float]:
        staging = self.work / "staging" / f"{stage.key.name}-{stage.key.version}"
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
            if to_heal and sha256 == to_heal.sha256:
                self._heal(to_heal, staging)
                return to_heal, seconds
            key = self._free_attempt(stage.key, newest)
            manifest = Manifest(
                name=key.name,
                version=key.version,
                sha256=sha256,
                key=key,
                inputs=stage.inputs,
                files=payload,
                made=self._provenance(stage, seconds),
            )
            self._publish(manifest, staging)
            if to_heal:
                self._set_aside(self.folder(to_heal.name, to_heal.version), str(to_heal.ref))
            return manifest, seconds
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _provenance(self, stage: Stage, seconds: float) -> Provenance:
        return Provenance(
            at=now(),
            seconds=round(seconds, 3),
            run=self.run,
            host=platform.node(),
            device=stage.device,
            versions=versions(),
        )

    def _free_attempt(self, key: Key, newest: Manifest | None) -> Key:
        """The key at the next attempt that no folder stands for, not even one whose manifest is lost."""
        attempt = newest.key.attempt + 1 if newest else 0
        while self.folder(key.name, key.at_attempt(attempt).version).exists():
            attempt += 1
        return key.at_attempt(attempt)

    def _publish(self, manifest: Manifest, staging: Path) -> None:
        for name in manifest.files:
            files.sync(staging / name)
        files.write_json(staging / MANIFEST, manifest.model_dump(mode="json"))
        target = self.folder(manifest.name, manifest.version)
        target.parent.mkdir(exist_ok=True)
        staging.rename(target)
        files.sync(target.parent)

    def _heal(self, manifest: Manifest, staging: Path) -> None:
        """Put the same bytes back, file by file; until the last one is there the version stays known as damaged."""
        folder = self.folder(manifest.name, manifest.version)
        for name, _ in list(self._damaged_files(manifest)):
            if (folder / name).exists():
                self._set_aside(folder / name, f"{manifest.ref}-{name}")
            files.sync(staging / name)
            (staging / name).rename(folder / name)
        files.sync(folder)

    def _set_aside(self, path: Path, label: str) -> None:
        quarantine = self.root / ".quarantine"
        quarantine.mkdir(exist_ok=True)
        path.rename(quarantine / f"{label.replace('/', '-')}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")


def open_store(root: Path) -> Store:
    """The store at `root`, made if there is none, and rid of what killed processes left half done."""
    store = Store(root)
    try:
        (store.work / "locks").mkdir(parents=True, exist_ok=True)
        with store.locked("opening", log=lambda _: None):
            _describe(root / "store.json")
            for leftover in sorted((store.work / "staging").glob("*")):
                with suppress(Timeout), FileLock(store.work / "locks" / f"{leftover.name}.lock").acquire(timeout=0):
                    shutil.rmtree(leftover, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"store {root}: cannot be written ({error.strerror}); give another folder by --store"
        ) from None
    return store


def _describe(description: Path) -> None:
    """Write down the store's format, or check it."""
    files.sweep(description)
    if not description.exists():
        files.write_json(description, {"format": FORMAT})
    text = description.read_text(encoding="utf-8", errors="replace")
    try:
        found = json.loads(text)["format"]
    except (ValueError, TypeError, KeyError, IndexError):
        found = text[:40]
    if found != FORMAT:
        raise InputError(
            f"store {description.parent}: expected format {FORMAT}, got {found!r}; use the cifar-flow that made it"
        )
