"""What was seen of a store from outside, told from its objects alone, and what must hold of it whatever happened."""

import hashlib
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import PurePosixPath

import pytest
from filelock import FileLock
from places import Place, payload_of
from pydantic import ValidationError

from tasks.core.store import ArtifactRef, DamagedArtifact, Store
from tasks.core.store.artifact import Manifest
from tasks.core.store.current import Current
from tasks.core.store.promotion_log import LogEntry
from tasks.core.store.runs import RunRecord
from tasks.core.store.storage import MANIFEST, ROOT_FILES
from tasks.core.store.verify import verify

Files = dict[str, bytes]


class Witness:
    """What was seen of a store from outside: its versions as they appeared, and which of their files were spoilt since.

    Those that were lost, or found damaged and set aside, are `gone`. Versions that were collected are forgotten, as in
    the store. `backups` are the records of promoted runs as they were seen last.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.whole: dict[str, Files] = {}
        self.spoilt: dict[str, set[str]] = {}
        self.gone: dict[str, Files] = {}
        self.records: dict[str, RunRecord] = {}
        self.garbled: list[str] = []
        self.seen: list[str] = []
        self.promoted: dict[str, dict[str, ArtifactRef]] = {}
        self.backups: dict[str, bytes] = {}
        self.last: Current | None = None
        self.log_is_whole = True

    def look(self) -> None:
        """Check what holds at any moment, even if a process was killed just now and nobody opened the store since."""
        for lock in self.place.local.glob("locks/*.lock"):
            with FileLock(lock).acquire(timeout=0):
                pass
        self.objects = self.place.all()
        self._look_at_records()
        if current := self.current():
            self.last = current
            self.promoted.setdefault(current.run, current.artifacts)
        assert not [run for run in self.promoted if run in self.records and self.records[run].collected]
        self._look_at_versions()

    def _look_at_records(self) -> None:
        """Read them again, in the order in which they appeared."""
        there = {
            name.removeprefix("runs/").removesuffix(".json"): content
            for name, content in sorted(self.objects.items())
            if fnmatch(name, "runs/[!.]*")
        }
        self.seen += [run for run in there if run not in self.seen]
        records = {run: _record(there[run]) for run in self.seen if run in there}
        self.records = {run: record for run, record in records.items() if record}
        self.garbled = [run for run, record in records.items() if not record]
        self.backups |= {run: there[run] for run in self.records if run in self.promoted}

    def _look_at_versions(self) -> None:
        there = {version: self._held(version) for version in self.place.version_names(self.objects)}
        for version in there.keys() - self.whole.keys():
            check_is_whole(version, there[version])
            before = self.gone.pop(version, there[version])
            same = before | {MANIFEST: b""} == there[version] | {MANIFEST: b""}  # it says when it was made
            assert same or not self._is_named(version), f"{version} came back with other bytes"
        self.whole |= {version: there[version] for version in sorted(there) if version not in self.whole}
        for version in self.whole.keys() - there.keys():
            self._check_may_be_absent(version, self.spoilt.pop(version), self.whole.pop(version))
        for version, held in there.items():
            if MANIFEST in self.spoilt.get(version, ()) and _is_whole_again(version, held):
                assert self.whole[version] | {MANIFEST: b""} == held | {MANIFEST: b""}, f"{version} has other bytes"
                self.whole[version] = held
            wrong = {name for name, content in self.whole[version].items() if held.get(name) != content}
            assert wrong <= self.spoilt.get(version, set()), f"{version}: {wrong} changed"
            self.spoilt[version] = wrong

    def _held(self, version: str) -> Files:
        """The files of a version; whose they are tells its manifest, as it is or as it was."""
        manifest = manifest_of(self.whole.get(version) or {MANIFEST: self.objects[f"{version}/{MANIFEST}"]})
        folders = (version, self.place.payload(version, manifest.sha256))
        paths = {PurePosixPath(name): content for name, content in self.objects.items()}
        return {path.name: content for path, content in paths.items() if str(path.parent) in folders}

    def _check_may_be_absent(self, version: str, spoilt: set[str], before: Files) -> None:
        if spoilt and self._is_in_quarantine(version):
            self.gone[version] = before
        else:
            of_promoted = [ref for refs in self.promoted.values() for ref in refs.values()]
            assert version not in map(str, [*self.wanted(), *of_promoted]), f"{version} is lost"

    def _is_named(self, version: str) -> bool:
        """Whether somebody would notice if it had other bytes."""
        return self._is_in_quarantine(version) or version in map(str, self.named())

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

    def is_told_by_log(self) -> bool:
        """Whether the log and the record of the run that was current last make up for a lost current.json."""
        *_, entry = [None, *(entry for entry in self.log() if not entry or entry.action != "refuse")]
        return bool(entry and self.last and entry == self.last.entry and self.last.run in self.records)

    def current_is_lost(self) -> bool:
        return bool(self.promoted) and not self.current() and not self.is_told_by_log()

    def lacking(self) -> list[str]:
        """The runs that the gate let through and of which the log does not know."""
        logged = {entry.run for entry in self.promotions()}
        let_through = (run for run, each in self.records.items() if str(each.verdict).startswith("promoted"))
        return [run for run in let_through if self.records[run].status == "completed" and run not in logged]

    def find_gaps(self) -> list[str]:
        """What `verify` is to say of the log and the records."""
        unknown = {entry.run for entry in self.promotions()} - self.records.keys() - set(self.garbled)
        gaps = [f"run {run}: it was promoted, and has no record" for run in unknown]
        gaps += ["promotions.jsonl: it lacks"] if self.lacking() else []
        torn = self.log().count(None)
        return gaps + ([f"promotions.jsonl: {torn} lines cannot be read"] if torn else [])

    def named(self) -> list[ArtifactRef]:
        """What the runs on record are made of, and the current one."""
        current = self.current()
        refs = [ref for each in self.records.values() for ref in each.artifacts.values()]
        return refs + (list(current.artifacts.values()) if current else [])

    def wanted(self) -> list[ArtifactRef]:
        """What the runs are made of that were not collected."""
        return [ref for each in self.records.values() if not each.collected for ref in each.artifacts.values()]

    def is_whole(self, ref: ArtifactRef) -> bool:
        return str(ref) in self.whole and not self.spoilt[str(ref)]

    def can_be_promoted(self, run: str) -> bool:
        if (record := self.records.get(run)) is None:
            return False
        whole = all(self.is_whole(record.artifacts[name]) for name in ROOT_FILES.values() if name in record.artifacts)
        return record.status == "completed" and not record.collected and whole

    def look_around(self, store: Store) -> None:
        """Check what holds in a store that was just opened."""
        self.look()
        assert self._half_done() == []
        for ref in self.wanted():
            if self.is_whole(ref):
                payload = payload_of(store, ref)
                assert payload | {MANIFEST: self.whole[str(ref)][MANIFEST]} == self.whole[str(ref)]
            else:
                with pytest.raises(DamagedArtifact):
                    store.open(ref)
        self._check_current_run()
        wrong = self._wrong()
        found = {finding.wrong: finding.known for _, piece in verify(store) for finding in piece}
        assert {next(filter(words.startswith, wrong), words): known for words, known in found.items()} == wrong

    def _half_done(self) -> list[str]:
        """What is half written, but for records, which the next collection sweeps, and for what is not healed yet."""
        damaged = [version for version, files in self.spoilt.items() if files]
        left_for_later = {PurePosixPath(name) for name in (".work", ".quarantine", "runs", *damaged)}
        paths = [PurePosixPath(name) for name in self.place.hidden()]
        hidden = [str(path) for path in paths if not {path, *path.parents} & left_for_later]
        return [*hidden, *map(str, self.place.local.glob("staging/*")), *map(str, self.place.local.glob("trash/*"))]

    def _check_current_run(self) -> None:
        current, promotions = self.current(), self.promotions()
        assert current or not self.promoted or self.current_is_lost()
        assert promotions[-1:] == ([current.entry] if current else promotions[-1:])
        assert {entry.run for entry in promotions} <= self.promoted.keys()
        self.log_is_whole |= {entry.run for entry in promotions} == self.promoted.keys()
        assert self.log_is_whole <= ({entry.run for entry in promotions} == self.promoted.keys())
        assert {self.records[entry.run].status for entry in promotions if entry.run in self.records} <= {"completed"}
        for name, artifact in ROOT_FILES.items():
            if current and self.is_whole(ref := current.artifacts[artifact]):
                assert self.objects[name] == self.whole[str(ref)][name]

    def _wrong(self) -> dict[str, bool]:
        """How each finding of `verify` is to begin, and whether it is to be known already."""
        wrong: dict[str, bool] = {}
        for version, files in self.spoilt.items():
            wrong |= {f"{version}: {'its manifest' if MANIFEST in files else name} is": False for name in files}
        wrong |= {f"run {run}: its record cannot be read": False for run in self.garbled}
        for run, record in self.records.items():
            gone = [ref for ref in record.artifacts.values() if str(ref) in self.gone and not record.collected]
            wrong |= {f"run {run}: its {ref} is not in the store": self._is_superseded(ref) for ref in gone}
        wrong |= dict.fromkeys(self.gaps(), False)
        if self.current_is_lost():
            wrong[f"{self.place.location}/current.json: expected the current run"] = False
        if current := self.current():
            for name, artifact in ROOT_FILES.items():
                version = str(current.artifacts[artifact])
                if version in self.gone or MANIFEST in self.spoilt[version]:
                    wrong[f"run {current.run}: the current run's {version} is lost"] = False
                elif self.objects.get(name) != self.whole[version][name]:
                    wrong[f"at the root: {name} is"] = False
        return wrong

    def _is_superseded(self, ref: ArtifactRef) -> bool:
        keys = [
            manifest_of(files).key
            for version, files in self.whole.items()
            if version.startswith(f"{ref.name}/") and MANIFEST not in self.spoilt[version]
        ]
        return any(key.with_attempt(earlier).version == ref.version for key in keys for earlier in range(key.attempt))


def _record(content: bytes) -> RunRecord | None:
    with suppress(ValidationError):
        return RunRecord.model_validate_json(content)
    return None


def manifest_of(files: Files) -> Manifest:
    return Manifest.model_validate_json(files[MANIFEST])


def _is_whole_again(version: str, held: Files) -> bool:
    with suppress(AssertionError, KeyError, ValidationError):
        check_is_whole(version, held)
        return True
    return False


def check_is_whole(version: str, held: Files) -> None:
    manifest = manifest_of(held)
    assert str(manifest.ref) == version
    assert manifest.is_consistent()
    payload = {name: hashlib.sha256(content).hexdigest() for name, content in held.items() if name != MANIFEST}
    assert payload == {name: facts.sha256 for name, facts in manifest.files.items()}
