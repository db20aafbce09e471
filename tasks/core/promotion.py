"""Promotion: which run's files stand at the store's root.

`current.json` alone says which run that is. The root files follow it, and are put right whenever they do not.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.core import files
from tasks.core.artifact import ArtifactRef, Log
from tasks.core.config import Promote
from tasks.core.errors import WorldError
from tasks.core.identity import Identity, read_identity
from tasks.core.runs import Run
from tasks.core.store import DamagedArtifact, Store, now, open_store

ROOT_FILES = {
    "per_class.parquet": "per_class",
    "predictions.parquet": "predictions",
    "cifar_net.pth": "weights",
    "report.html": "report",
    "metrics.json": "report",
}
CURRENT, LOG, LOCK = "current.json", "promotions.jsonl", "promotion"
JUDGED = ("dataset", "weights", "predictions", "per_class")


class Verdict(BaseModel):
    """Whether a run becomes the current one, and why; `keep` means that its results are the current ones already."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["promote", "keep", "refuse"]
    reason: str

    @property
    def promoted(self) -> bool:
        return self.action != "refuse"

    def __str__(self) -> str:
        words = {"promote": "promoted", "keep": "the same as the promoted one, which stays", "refuse": "not promoted"}
        return f"{words[self.action]}: {self.reason}"


class Current(BaseModel):
    """The promoted run: what `current.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    at: str
    who: str
    why: str
    identity: Identity
    artifacts: dict[str, ArtifactRef]


def decide(
    policy: Promote, candidate: Mapping[str, ArtifactRef], identity: Identity, current: Current | None
) -> Verdict:
    """Judge a run by its dataset: a better one replaces a lesser, never the other way round unless told to."""
    if current and _same(JUDGED, candidate, current):
        return Verdict(action="keep", reason=current.why)
    if policy == "never":
        return Verdict(action="refuse", reason="--promote never was asked for")
    if current is None:
        return Verdict(action="promote", reason="it is the first finished run in this store")
    place = f"in place of run {current.run}"
    if policy == "always":
        return Verdict(action="promote", reason=f"--promote always was asked for, {place}")
    if identity.rank > current.identity.rank:
        return Verdict(action="promote", reason=f"{identity.name} ranks above {current.identity.name}, {place}")
    if identity.rank < current.identity.rank:
        ranks = f"{identity.name} ranks below {current.identity.name} of run {current.run}"
        return Verdict(action="refuse", reason=f"{ranks}; --promote always overrules that")
    if identity.same_images(current.identity):
        return Verdict(action="promote", reason=f"it is the latest run on the same dataset, {place}")
    other = f"its images are not those of the current run {current.run}"
    return Verdict(action="refuse", reason=f"{other}; --promote always overrules that")


def _same(names: Iterable[str], artifacts: Mapping[str, ArtifactRef], current: Current) -> bool:
    return all(artifacts[name].sha256 == current.artifacts[name].sha256 for name in names)


def read_current(store: Store) -> Current | None:
    path = store.root / CURRENT
    try:
        return Current.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValidationError:
        raise WorldError(f"{path}: expected a promoted run, got something else; delete it to promote anew") from None


@contextmanager
def judged(run: Run, policy: Promote, log: Log) -> Iterator[Verdict]:
    """The verdict on a run while its report is made, and then its promotion, if that is the verdict.

    One run at a time, so that no verdict is overtaken by another run's promotion.
    """
    store, artifacts = run.store, run.record.artifacts
    with store.locked(LOCK, log):
        identity = read_identity(store.open(artifacts["dataset"]))
        current = read_current(store)
        verdict = decide(policy, artifacts, identity, current)
        yield verdict
        run.record.verdict = str(verdict)
        run.end("completed")
        entry = {"run": run.record.run, "at": now(), "who": run.record.who, "why": verdict.reason}
        if verdict.action == "refuse":
            files.append_line(store.root / LOG, {"action": "refuse", **entry})
        elif verdict.action == "keep" and current and _same(("report",), artifacts, current):
            _make_current(store, current.model_copy(update={"artifacts": artifacts}))  # perhaps in newer versions
        elif policy != "never":
            _make_current(store, Current(**entry, identity=identity, artifacts=artifacts))
        log(f"run {run.record.run} on {identity.name} is {verdict}")


def _make_current(store: Store, current: Current) -> None:
    files.write_json(store.root / CURRENT, current.model_dump(mode="json"))
    _put_right(store, current)


def open_settled_store(root: Path, log: Log) -> Store:
    """The store at `root`, with the root files of its current run, even if the last promotion was cut short."""
    store = open_store(root)
    try:
        restore_root(store, log)
    except DamagedArtifact as error:  # this run may be the one that makes it anew
        log(f"the promoted run's files cannot be put right yet: {error}")
    return store


def restore_root(store: Store, log: Log = print) -> None:
    """Make the root files, and the log of promotions, those of the current run, whatever they were."""
    with store.locked(LOCK, log):
        for name in (CURRENT, *ROOT_FILES):
            files.sweep(store.root / name)
        if current := read_current(store):
            _put_right(store, current)


def _put_right(store: Store, current: Current) -> None:
    _log_promotion(store, current)
    for name, artifact in ROOT_FILES.items():
        ref = current.artifacts[artifact]
        manifest = store.manifest(ref.name, ref.version)
        if manifest is None:
            raise DamagedArtifact(f"{ref} of the promoted run {current.run} is lost; run again to have it made anew")
        wanted, target = manifest.files[name].sha256, store.root / name
        if not target.is_file() or files.sha256_of(target) != wanted:
            files.copy(store.open(ref) / name, target)


def _log_promotion(store: Store, current: Current) -> None:
    entry = {"action": "promote", "run": current.run, "at": current.at, "who": current.who, "why": current.why}
    path = store.root / LOG
    if files.canonical_json(entry) not in (
        path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    ):
        files.append_line(path, entry)
