"""Verification: compare every byte of a store with its manifests, run records and current run."""

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

NEXT_RUN_REBUILDS = "the next run that needs it rebuilds it"
NEXT_RUN_REPAIRS = "the next run repairs it"
RUN_AGAIN = "run again with its settings"
RUN_AGAIN_OR_PROMOTE = f"{RUN_AGAIN}, or promote another run"
NOT_NEEDED = "no run needs it while the dataset is intact; --refresh download rebuilds it"
RAW, DATASET = "raw", "dataset"  # the archive is only needed to build the dataset


class Finding(FrozenModel):
    """A problem; `known` if it needs no action, as the version was replaced or is not needed."""

    wrong: str
    advice: str
    known: bool = False


def verify(store: Store) -> Iterator[tuple[str, list[Finding]]]:
    """Check a store piece by piece: the name of each piece, and its problems."""
    for piece, findings in _Verification(store).pieces():
        yield piece, list(_until_unreadable(findings))


def _until_unreadable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings up to an error of the environment, and that error as the last one."""
    try:
        yield from findings
    except EnvironmentFailure as error:
        yield Finding(wrong=error.problem, advice=error.advice or "")


@dataclass(frozen=True)
class _Verification:
    """A store, with the intact versions and the run records that were read so far."""

    store: Store
    intact: set[ArtifactRef] = field(default_factory=set)
    records: list[RunRecord] = field(default_factory=list)

    def pieces(self) -> Iterator[tuple[str, Iterator[Finding]]]:
        """Every piece; archives after the runs and datasets that may make them unneeded."""
        versions = [(name, version) for name in self.store.artifact_names() for version in self.store.versions(name)]
        for name, version in versions:
            if name != RAW:
                yield f"{name}/{version}", self._check_version(name, version)
        for run in run_ids(self.store):
            yield f"run {run}", self._check_run(run)
        for name, version in versions:
            if name == RAW:
                yield f"{name}/{version}", self._check_version(name, version)
        gaps = find_gaps(self.store, self.records)
        yield "promotions", (Finding(wrong=problem, advice=advice) for problem, advice in gaps)
        yield "current run", self._check_current()

    def _check_version(self, name: str, version: str) -> Iterator[Finding]:
        manifest = self.store.manifest(name, version)
        problems = ["its manifest is lost or damaged"]
        if manifest is not None:
            problems = [problem for _, problem in self.store.find_damage(manifest, rehash=True)]
        if manifest is not None and not problems:
            self.intact.add(manifest.ref)
        known = bool(problems) and name == RAW and self._is_unneeded_archive(version)
        for problem in problems:
            advice = NOT_NEEDED if known else NEXT_RUN_REBUILDS
            yield Finding(wrong=f"{name}/{version}: {problem}", advice=advice, known=known)

    def _is_unneeded_archive(self, version: str) -> bool:
        artifacts = [record.artifacts for record in self.records if not record.collected]
        used = [refs for refs in artifacts if RAW in refs and refs[RAW].version == version and DATASET in refs]
        return bool(used) and all(refs[DATASET] in self.intact for refs in used)

    def _check_run(self, run: str) -> Iterator[Finding]:
        record = read_record(self.store, run)
        if record is None:
            advice = "restore runs/ from a backup, or delete it"
            yield Finding(wrong=f"run {run}: its record cannot be read", advice=advice)
            return
        self.records.append(record)
        for ref in record.artifacts.values() if not record.collected else ():
            manifest = self.store.manifest(ref.name, ref.version)
            if manifest is None and ref.version not in self.store.versions(ref.name):
                yield self._lost_artifact(record, ref)
            elif manifest and manifest.sha256 != ref.sha256:
                yield Finding(wrong=f"run {run}: its {ref} holds other bytes now", advice=RUN_AGAIN)

    def _lost_artifact(self, record: RunRecord, ref: ArtifactRef) -> Finding:
        lost = f"run {record.run}: its {ref} is not in the store"
        if ref.version in self.store.superseded_versions(ref.name):
            return Finding(wrong=f"{lost}, and a later attempt replaced it", advice=RUN_AGAIN, known=True)
        if ref.name == RAW and record.artifacts.get(DATASET) in self.intact:
            return Finding(wrong=lost, advice=NOT_NEEDED, known=True)
        return Finding(wrong=lost, advice=RUN_AGAIN)

    def _check_current(self) -> Iterator[Finding]:
        try:
            current = read_current(self.store)
        except CurrentRunUnknown as error:
            advice = NEXT_RUN_REPAIRS if reconstruct_current(self.store) else error.advice
            yield Finding(wrong=error.problem, advice=advice or "")
            return
        if current is None:
            return
        if current.entry not in read_log(self.store):
            wrong = f"{LOG}: the promotion of the current run {current.run} is missing"
            yield Finding(wrong=wrong, advice=NEXT_RUN_REPAIRS)
        for artifact in sorted(set(ROOT_FILES.values())):
            ref = current.artifacts[artifact]
            manifest = self.store.manifest(ref.name, ref.version)
            if manifest is None:
                wrong = f"run {current.run}: the current run's {ref} is lost"
                yield Finding(wrong=wrong, advice=RUN_AGAIN_OR_PROMOTE)
                continue
            expected = {name: manifest.files[name] for name, each in ROOT_FILES.items() if each == artifact}
            for _, problem in self.store.storage.find_damage("", expected, rehash=True):
                yield Finding(wrong=f"at the root: {problem}", advice=NEXT_RUN_REPAIRS)
