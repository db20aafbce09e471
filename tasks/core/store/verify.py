"""Verification: every byte of a store against what its manifests, records and current run say."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.core.errors import EnvironmentFailure
from tasks.core.frozen_model import FrozenModel
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import CurrentRunUnknown, read_current, reconstruct_current
from tasks.core.store.promotion_log import find_gaps, read_log
from tasks.core.store.runs import RunRecord, read_record, run_ids
from tasks.core.store.storage import LOG, ROOT_FILES
from tasks.core.store.store import Store

AT_NEXT_RUN = "the next run that needs it makes it anew"
AS_CURRENT = "run again with its settings, or promote another run"
AT_OPENING = "the next run puts it right"
AGAIN = "run again with its settings"
BY_REFRESH = "no run needs it while the dataset is intact; --refresh download makes it anew"
RAW, DATASET = "raw", "dataset"  # the archive is read for nothing but to make the dataset


class Finding(FrozenModel):
    """Something that is not as it was stored; `known` is what was made anew since, or is not needed."""

    wrong: str
    advice: str
    known: bool = False


def verify(store: Store) -> Iterator[tuple[str, list[Finding]]]:
    """Check a store piece by piece: the name of each piece, and what is wrong with it."""
    for piece, findings in _Verification(store).pieces():
        yield piece, list(_readable(findings))


def _readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What is found, up to what cannot be read at all."""
    try:
        yield from findings
    except EnvironmentFailure as error:
        yield _as_finding(error)


def _as_finding(error: EnvironmentFailure) -> Finding:
    wrong, _, advice = str(error).partition("; ")
    return Finding(wrong=wrong, advice=advice)


@dataclass(frozen=True)
class _Verification:
    """A store, and what was read of it so far: the versions that are whole, and the records."""

    store: Store
    whole: set[ArtifactRef] = field(default_factory=set)
    records: list[RunRecord] = field(default_factory=list)

    def pieces(self) -> Iterator[tuple[str, Iterator[Finding]]]:
        """Every piece; archives after all that tells whether they are needed."""
        versions = [(name, version) for name in self.store.artifacts() for version in self.store.versions(name)]
        for name, version in versions:
            if name != RAW:
                yield f"{name}/{version}", self._version(name, version)
        for run in run_ids(self.store):
            yield f"run {run}", self._run(run)
        for name, version in versions:
            if name == RAW:
                yield f"{name}/{version}", self._version(name, version)
        yield "promotions", self._promotions()
        yield "current run", self._current()

    def _version(self, name: str, version: str) -> Iterator[Finding]:
        manifest = self.store.manifest(name, version)
        damage = ["its manifest is lost or damaged"]
        if manifest is not None:
            damage = [words for _, words in self.store.find_damage(manifest, anew=True)]
        if manifest is not None and not damage:
            self.whole.add(manifest.ref)
        known = bool(damage) and name == RAW and self._is_spare(version)
        for words in damage:
            yield Finding(wrong=f"{name}/{version}: {words}", advice=BY_REFRESH if known else AT_NEXT_RUN, known=known)

    def _is_spare(self, version: str) -> bool:
        """Whether every run that has an archive has an intact dataset, too."""
        made = [record.artifacts for record in self.records if not record.collected and DATASET in record.artifacts]
        datasets = [refs[DATASET] for refs in made if RAW in refs and refs[RAW].version == version]
        return bool(datasets) and set(datasets) <= self.whole

    def _run(self, run: str) -> Iterator[Finding]:
        record = read_record(self.store, run)
        if record is None:
            advice = "restore runs/ from a backup, or delete it"
            yield Finding(wrong=f"run {run}: its record cannot be read", advice=advice)
            return
        self.records.append(record)
        for ref in record.artifacts.values() if not record.collected else ():
            manifest = self.store.manifest(ref.name, ref.version)
            if manifest is None and ref.version not in self.store.versions(ref.name):
                yield self._lost(record, ref)
            elif manifest and manifest.sha256 != ref.sha256:
                yield Finding(wrong=f"run {run}: its {ref} holds other bytes now", advice=AGAIN)

    def _lost(self, record: RunRecord, ref: ArtifactRef) -> Finding:
        lost = f"run {record.run}: its {ref} is not in the store"
        if ref.version in self.store.superseded_versions(ref.name):
            return Finding(wrong=f"{lost}, and was made anew as a later attempt", advice=AGAIN, known=True)
        if ref.name == RAW and record.artifacts.get(DATASET) in self.whole:
            return Finding(wrong=lost, advice=BY_REFRESH, known=True)
        return Finding(wrong=lost, advice=AGAIN)

    def _promotions(self) -> Iterator[Finding]:
        for wrong, advice in find_gaps(self.store, self.records):
            yield Finding(wrong=wrong, advice=advice)

    def _current(self) -> Iterator[Finding]:
        try:
            current = read_current(self.store)
        except CurrentRunUnknown as error:
            by_hand = _as_finding(error)
            yield by_hand.model_copy(update={"advice": AT_OPENING}) if reconstruct_current(self.store) else by_hand
            return
        if current is None:
            return
        if current.entry not in read_log(self.store):
            yield Finding(wrong=f"{LOG}: it lacks the promotion of the current run {current.run}", advice=AT_OPENING)
        for artifact in sorted(set(ROOT_FILES.values())):
            ref = current.artifacts[artifact]
            manifest = self.store.manifest(ref.name, ref.version)
            if manifest is None:
                yield Finding(wrong=f"run {current.run}: the current run's {ref} is lost", advice=AS_CURRENT)
                continue
            wanted = {name: manifest.files[name] for name, each in ROOT_FILES.items() if each == artifact}
            for _, words in self.store.storage.find_damage("", wanted, anew=True):
                yield Finding(wrong=f"at the root: {words}", advice=AT_OPENING)
