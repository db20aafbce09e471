"""A model of a store, built from its objects alone, and the promises that must hold after every event."""

import hashlib
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import PurePosixPath

import pytest
from filelock import FileLock
from places import Place, read_payload
from pydantic import ValidationError

from tasks.core.store import ArtifactRef, DamagedArtifact, Store
from tasks.core.store.artifact import Manifest
from tasks.core.store.current import Current
from tasks.core.store.promotion_log import LogEntry
from tasks.core.store.runs import RunRecord
from tasks.core.store.storage import MANIFEST, ROOT_FILES
from tasks.core.store.verify import verify

Files = dict[str, bytes]


class StoreModel:
    """The expected content of a store.

    Attributes:
        versions: The files of each version when it appeared, without collected versions.
        damaged: The names of the files of each version that were damaged since.
        lost: The files of the versions that were deleted, or moved to the quarantine.
        order: The runs in the order in which they appeared.
        backups: The last content of each promoted run's record.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.versions: dict[str, Files] = {}
        self.damaged: dict[str, set[str]] = {}
        self.lost: dict[str, Files] = {}
        self.records: dict[str, RunRecord] = {}
        self.unreadable: list[str] = []
        self.order: list[str] = []
        self.promoted: dict[str, dict[str, ArtifactRef]] = {}
        self.backups: dict[str, bytes] = {}
        self.last: Current | None = None
        self.is_log_complete = True

    def check(self) -> None:
        """Check what must hold at any moment, even right after a kill."""
        for lock in self.place.local.glob("locks/*.lock"):
            with FileLock(lock).acquire(timeout=0):
                pass
        self.objects = self.place.all()
        self._check_records()
        if current := self.current():
            self.last = current
            self.promoted.setdefault(current.run, current.artifacts)
        assert not [run for run in self.promoted if run in self.records and self.records[run].collected]
        self._check_versions()

    def _check_records(self) -> None:
        """Read all records again."""
        present = {
            name.removeprefix("runs/").removesuffix(".json"): content
            for name, content in sorted(self.objects.items())
            if fnmatch(name, "runs/[!.]*")
        }
        self.order += [run for run in present if run not in self.order]
        records = {run: _record(present[run]) for run in self.order if run in present}
        self.records = {run: record for run, record in records.items() if record}
        self.unreadable = [run for run, record in records.items() if not record]
        self.backups |= {run: present[run] for run in self.records if run in self.promoted}

    def _check_versions(self) -> None:
        present = {version: self._files_of(version) for version in self.place.version_names(self.objects)}
        for version in present.keys() - self.versions.keys():
            check_version(version, present[version])
            before = self.lost.pop(version, present[version])
            same = before | {MANIFEST: b""} == present[version] | {
                MANIFEST: b""
            }  # a manifest has the time of its build
            assert same or not self._is_referenced(version), f"{version} came back with other bytes"
        self.versions |= {version: present[version] for version in sorted(present) if version not in self.versions}
        for version in self.versions.keys() - present.keys():
            self._check_absence_is_allowed(version, self.damaged.pop(version), self.versions.pop(version))
        for version, files_now in present.items():
            if MANIFEST in self.damaged.get(version, ()) and _is_restored(version, files_now):
                assert self.versions[version] | {MANIFEST: b""} == files_now | {MANIFEST: b""}, (
                    f"{version} has other bytes"
                )
                self.versions[version] = files_now
            wrong = {name for name, content in self.versions[version].items() if files_now.get(name) != content}
            assert wrong <= self.damaged.get(version, set()), f"{version}: {wrong} changed"
            self.damaged[version] = wrong

    def _files_of(self, version: str) -> Files:
        """The files of a version, found by the digest in its manifest as it is or was."""
        manifest = manifest_of(self.versions.get(version) or {MANIFEST: self.objects[f"{version}/{MANIFEST}"]})
        folders = (version, self.place.payload(version, manifest.sha256))
        paths = {PurePosixPath(name): content for name, content in self.objects.items()}
        return {path.name: content for path, content in paths.items() if str(path.parent) in folders}

    def _check_absence_is_allowed(self, version: str, damaged: set[str], before: Files) -> None:
        if damaged and self._is_in_quarantine(version):
            self.lost[version] = before
        else:
            of_promoted = [ref for refs in self.promoted.values() for ref in refs.values()]
            assert version not in map(str, [*self.uncollected(), *of_promoted]), f"{version} is lost"

    def _is_referenced(self, version: str) -> bool:
        """Whether a run or the quarantine still refers to its bytes."""
        return self._is_in_quarantine(version) or version in map(str, self.references())

    def _is_in_quarantine(self, version: str) -> bool:
        return any(fnmatch(name, f".quarantine/{version.replace('/', '-')}-*T*/*") for name in self.objects)

    def current(self) -> Current | None:
        with suppress(ValidationError):
            return Current.model_validate_json(self.place.find("current.json") or b"")
        return None

    def log(self) -> list[LogEntry | None]:
        """The lines of the log; None for those that are torn."""
        lines = list[LogEntry | None]()
        for line in (self.place.find("promotions.jsonl") or b"").splitlines():
            try:
                lines.append(LogEntry.model_validate_json(line))
            except ValidationError:
                lines.append(None)
        return lines

    def promotions(self) -> list[LogEntry]:
        return [entry for entry in self.log() if entry and entry.action != "refuse"]

    def is_restorable(self) -> bool:
        """Whether a lost current.json follows from the log and the record of the last current run."""
        *_, entry = [None, *(entry for entry in self.log() if not entry or entry.action != "refuse")]
        return bool(entry and self.last and entry == self.last.entry and self.last.run in self.records)

    def current_is_lost(self) -> bool:
        return bool(self.promoted) and not self.current() and not self.is_restorable()

    def missing_promotions(self) -> list[str]:
        """The promoted runs that the log lacks."""
        logged = {entry.run for entry in self.promotions()}
        promoted = (run for run, each in self.records.items() if each.promotion == "promote")
        return [run for run in promoted if self.records[run].status == "completed" and run not in logged]

    def expected_gaps(self) -> list[str]:
        """The findings of `verify` on the log and the records."""
        unknown = {entry.run for entry in self.promotions()} - self.records.keys() - set(self.unreadable)
        gaps = [f"run {run}: it was promoted, and has no record" for run in unknown]
        missing = len(self.missing_promotions())
        gaps += [f"promotions.jsonl: {missing} runs that were promoted by their records are missing"] if missing else []
        torn = self.log().count(None)
        return gaps + ([f"promotions.jsonl: {torn} lines cannot be read"] if torn else [])

    def references(self) -> list[ArtifactRef]:
        """The artifacts of all runs and of the current one."""
        current = self.current()
        refs = [ref for each in self.records.values() for ref in each.artifacts.values()]
        return refs + (list(current.artifacts.values()) if current else [])

    def uncollected(self) -> list[ArtifactRef]:
        """The artifacts of the runs that were not collected."""
        return [ref for each in self.records.values() if not each.collected for ref in each.artifacts.values()]

    def is_intact(self, ref: ArtifactRef) -> bool:
        return str(ref) in self.versions and not self.damaged[str(ref)]

    def can_be_promoted(self, run: str) -> bool:
        if (record := self.records.get(run)) is None:
            return False
        refs = [record.artifacts[name] for name in ROOT_FILES.values() if name in record.artifacts]
        return record.status == "completed" and not record.collected and all(map(self.is_intact, refs))

    def check_opened_store(self, store: Store) -> None:
        """Check what must hold in a store that was just opened."""
        self.check()
        assert self._partial_writes() == []
        for ref in self.uncollected():
            if self.is_intact(ref):
                payload = read_payload(store, ref)
                assert payload | {MANIFEST: self.versions[str(ref)][MANIFEST]} == self.versions[str(ref)]
            else:
                with pytest.raises(DamagedArtifact):
                    store.open(ref)
        self._check_current_run()
        expected = self._expected_findings()
        findings = {finding.wrong: finding.known for _, piece in verify(store) for finding in piece}
        assert {next(filter(text.startswith, expected), text): known for text, known in findings.items()} == expected

    def _partial_writes(self) -> list[str]:
        """Partial writes, except of records (the next collection removes them) and in damaged versions."""
        damaged = [version for version, files in self.damaged.items() if files]
        ignored = {PurePosixPath(name) for name in (".work", ".quarantine", "runs", *damaged)}
        paths = [PurePosixPath(name) for name in self.place.hidden()]
        hidden = [str(path) for path in paths if not {path, *path.parents} & ignored]
        return [*hidden, *map(str, self.place.local.glob("staging/*"))]

    def _check_current_run(self) -> None:
        current, promotions = self.current(), self.promotions()
        assert current or not self.promoted or self.current_is_lost()
        assert promotions[-1:] == ([current.entry] if current else promotions[-1:])
        assert {entry.run for entry in promotions} <= self.promoted.keys()
        self.is_log_complete |= {entry.run for entry in promotions} == self.promoted.keys()
        assert self.is_log_complete <= ({entry.run for entry in promotions} == self.promoted.keys())
        assert {self.records[entry.run].status for entry in promotions if entry.run in self.records} <= {"completed"}
        for name, artifact in ROOT_FILES.items():
            if current and self.is_intact(ref := current.artifacts[artifact]):
                assert self.objects[name] == self.versions[str(ref)][name]

    def _expected_findings(self) -> dict[str, bool]:
        """The beginning of each finding of `verify`, and whether it is a known one."""
        wrong: dict[str, bool] = {}
        for version, files in self.damaged.items():
            wrong |= {f"{version}: {'its manifest' if MANIFEST in files else name} is": False for name in files}
        wrong |= {f"run {run}: its record cannot be read": False for run in self.unreadable}
        for run, record in self.records.items():
            lost = [ref for ref in record.artifacts.values() if str(ref) in self.lost and not record.collected]
            wrong |= {f"run {run}: its {ref} is not in the store": self._is_superseded(ref) for ref in lost}
        wrong |= dict.fromkeys(self.expected_gaps(), False)
        if self.current_is_lost():
            wrong[f"{self.place.location}/current.json: expected the current run"] = False
        if current := self.current():
            for name, artifact in ROOT_FILES.items():
                version = str(current.artifacts[artifact])
                if version in self.lost or MANIFEST in self.damaged[version]:
                    wrong[f"run {current.run}: the current run's {version} is lost"] = False
                elif self.objects.get(name) != self.versions[version][name]:
                    wrong[f"at the root: {name} is"] = False
        return wrong

    def _is_superseded(self, ref: ArtifactRef) -> bool:
        keys = [
            manifest_of(files).key
            for version, files in self.versions.items()
            if version.startswith(f"{ref.name}/") and MANIFEST not in self.damaged[version]
        ]
        return any(key.with_attempt(earlier).version == ref.version for key in keys for earlier in range(key.attempt))


def _record(content: bytes) -> RunRecord | None:
    with suppress(ValidationError):
        return RunRecord.model_validate_json(content)
    return None


def manifest_of(files: Files) -> Manifest:
    return Manifest.model_validate_json(files[MANIFEST])


def _is_restored(version: str, files_now: Files) -> bool:
    with suppress(AssertionError, KeyError, ValidationError):
        check_version(version, files_now)
        return True
    return False


def check_version(version: str, files_now: Files) -> None:
    manifest = manifest_of(files_now)
    assert str(manifest.ref) == version
    assert manifest.is_consistent()
    payload = {name: hashlib.sha256(content).hexdigest() for name, content in files_now.items() if name != MANIFEST}
    assert payload == {name: facts.sha256 for name, facts in manifest.files.items()}
