"""Builds and the cache: reuse an intact version, rebuild a damaged one, publish a new one."""

import platform
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime import files
from tasks.core.runtime.environment import versions
from tasks.core.runtime.logs import logger
from tasks.core.store.artifact import (
    ArtifactRef,
    Build,
    FileFacts,
    Key,
    Manifest,
    Outcome,
    Provenance,
    content_digest,
    explain_miss,
)
from tasks.core.store.reader import StoreReader
from tasks.core.store.storage import CURRENT, RUNS, parse_json


class _References(BaseModel):
    """The field that run records and `current.json` have in common."""

    artifacts: dict[str, ArtifactRef]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class Store(StoreReader):
    """A store that builds artifacts for the run with the id `run`."""

    run: str | None = None
    refresh: str | None = None  # the task whose artifacts are rebuilt although their versions are intact

    @property
    def downloads(self) -> Path:
        """The folder of partial downloads."""
        return self.storage.local / "downloads"

    def work_folder(self, key: Key) -> Path:
        """The folder on this machine where an interrupted build keeps its checkpoints for the next attempt."""
        return self.storage.local / "unfinished" / f"{key.name}-{key.version}"

    def for_run(self, run: str) -> "Store":
        return replace(self, run=run)

    def get_or_create(self, build: Build) -> Outcome:
        """The newest intact version of an artifact; built now if there is none, or if `refresh` names its task."""
        key = build.key
        with self.lock(f"{key.name}-{key.version}"):
            newest = self.newest(key)
            damage = self.damage(newest) if newest else None
            reason = self.rebuild_reason(build, newest, damage)
            if newest and not reason:
                return Outcome(newest.ref, True, f"cache hit {newest.ref}")
            logger.info(f"{build.label}: {reason}")
            with files.disk_errors(self.storage.local.parent):
                manifest, seconds = self._build(build, newest, damaged=newest if damage else None)
            shutil.rmtree(self.work_folder(key), ignore_errors=True)
            return Outcome(manifest.ref, False, f"built {manifest.ref} in {seconds:.1f} s")

    def rebuild_reason(self, build: Build, newest: Manifest | None, damage: str | None) -> str | None:
        """Why an artifact has to be built, from its newest version and the damage of that; None on a cache hit."""
        present = set(self.versions(build.key.name))
        later = _next_attempt(build.key, newest, self.quarantined_versions(build.key.name) - present)
        if later.version in present and not self.manifest(later.name, later.version):
            return f"rebuilding, {later.name}/{later.version}: its manifest is lost or damaged"
        if newest is None:
            difference = explain_miss(build.key, self.manifests(build.key.name))
            return f"rebuilding, {difference}" if difference else "building for the first time"
        if damage:
            return f"rebuilding, {damage}"
        return "rebuilding, --refresh asked for it" if self.refresh == build.task else None

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a kernel lock, which the system releases when its process ends; log when another run holds it."""
        lock = FileLock(self.lock_path(name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info(f"store: waiting for another run to release {name}")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _build(self, build: Build, newest: Manifest | None, damaged: Manifest | None) -> tuple[Manifest, float]:
        staging = self.storage.local / "staging" / f"{build.key.name}-{build.key.version}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            started = time.perf_counter()
            build.fill(staging)
            seconds = time.perf_counter() - started
            return self._publish(build, staging, seconds, newest, damaged), seconds
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _publish(
        self, build: Build, staging: Path, seconds: float, newest: Manifest | None, damaged: Manifest | None
    ) -> Manifest:
        """The version with the bytes in `staging`, or the one that another machine published meanwhile."""
        payload = {
            path.name: FileFacts(bytes=path.stat().st_size, sha256=files.sha256_of(path))
            for path in sorted(staging.iterdir())
        }
        sha256 = content_digest({name: facts.sha256 for name, facts in payload.items()})
        # Listed before the next line: a version that appears later is no leftover.
        present = set(self.versions(build.key.name))
        if self.storage.is_shared and (theirs := self._published_elsewhere(build.key, newest, damaged)):
            return _use_theirs(build, theirs)
        if damaged and sha256 == damaged.sha256 and self._restore_files(damaged, staging):
            return damaged
        key = self._free_attempt(build.key, newest, sha256, present)
        manifest = Manifest(
            name=key.name,
            version=key.version,
            sha256=sha256,
            key=key,
            inputs=build.inputs,
            files=payload,
            made=Provenance(
                at=now(),
                seconds=round(seconds, 3),
                run=self.run,
                host=platform.node(),
                device=build.device,
                versions=versions(),
            ),
        )
        if damaged:
            self.storage.quarantine(str(damaged.ref), str(damaged.ref))
        if self.storage.publish(manifest, files.pretty_json(manifest.model_dump(mode="json")), staging):
            return manifest
        published = self.manifest(manifest.name, manifest.version)
        if published is None:
            raise EnvironmentFailure(f"{manifest.ref}: another machine is publishing it too", advice="run again")
        return _use_theirs(build, published)

    def _free_attempt(self, key: Key, newest: Manifest | None, sha256: str, present: set[str]) -> Key:
        """The key at the first attempt after the newest one whose version never had other bytes.

        The versions in `present` that stand in its way without a manifest are moved to the quarantine.
        """
        referenced = self._referenced_versions(key.name)
        other_bytes = {ref.version for ref in referenced if ref.sha256 != sha256}
        same_bytes = {ref.version for ref in referenced} - other_bytes
        free = _next_attempt(key, newest, (present | self.quarantined_versions(key.name)) - same_bytes | other_bytes)
        first = newest.key.attempt + 1 if newest else 0
        for version in present.intersection(key.with_attempt(each).version for each in range(first, free.attempt + 1)):
            if not self.manifest(key.name, version):  # another machine may have restored it
                self.storage.quarantine(f"{key.name}/{version}", f"{key.name}/{version}")
        return free

    def _referenced_versions(self, name: str) -> set[ArtifactRef]:
        """The versions of an artifact in run records and `current.json`, present or lost."""
        objects = [CURRENT, *(f"{RUNS}/{record}" for record in self.storage.names(RUNS))]
        found = (parse_json(_References, content) for content in self.storage.read_all(objects).values())
        return {each.artifacts[name] for each in found if each and name in each.artifacts}

    def _published_elsewhere(self, key: Key, newest: Manifest | None, damaged: Manifest | None) -> Manifest | None:
        """A later attempt than `newest`, or `newest` itself if it was damaged and is restored."""
        latest = self.newest(key)
        if latest and newest and latest.key.attempt <= newest.key.attempt:
            return latest if damaged and latest == newest and not self.damage(newest) else None
        return latest

    def _restore_files(self, manifest: Manifest, staging: Path) -> bool:
        """Replace the damaged files of a version by the same bytes; False if another machine quarantined the version.

        The version counts as damaged until the last file is restored.
        """
        folder = self.storage.payload_folder(manifest)
        for name, _ in list(self.find_damage(manifest)):
            self.storage.remove_partial_writes(f"{folder}/{name}")
            self.storage.quarantine(f"{folder}/{name}", f"{manifest.ref}-{name}")
            self.storage.put_file(f"{folder}/{name}", staging / name)
        return self.manifest(manifest.name, manifest.version) is not None


def _use_theirs(build: Build, manifest: Manifest) -> Manifest:
    logger.info(f"{build.label}: using {manifest.ref}, built by another machine meanwhile")
    return manifest


def _next_attempt(key: Key, newest: Manifest | None, taken: Collection[str]) -> Key:
    """The key at the first attempt after the newest whose version is not taken."""
    attempts = (key.with_attempt(number) for number in count(newest.key.attempt + 1 if newest else 0))
    return next(attempt for attempt in attempts if attempt.version not in taken)
