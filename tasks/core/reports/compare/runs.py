"""The runs that are compared: what each one was made from, and what its predictions come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import pandas as pd

from tasks.core.data.identity import Identity
from tasks.core.errors import InputError
from tasks.core.evaluation.bootstrap import Floats
from tasks.core.evaluation.intervals import Estimate
from tasks.core.evaluation.metrics import Tally
from tasks.core.evaluation.paired import IncomparableRuns
from tasks.core.evaluation.tables import calibration_table, predicted_classes, read_probabilities
from tasks.core.runtime.parquet import read_table
from tasks.core.store import DamagedArtifact, Store
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.store.history import artifact_of, find_run
from tasks.core.store.runs import RunRecord

MOST_RUNS = 26  # each has a letter
IMAGES_AT_ONCE = 1_000


@dataclass(frozen=True)
class ComparedRun:
    """A run by its letter; scores, their bootstrap replicates and calibration all follow from its predictions."""

    letter: str
    run: str
    identity: Identity
    dataset: ArtifactRef
    weights: Manifest
    evaluated: Manifest
    predictions: pd.DataFrame
    calibration: pd.DataFrame
    scores: Mapping[str, Estimate]
    replicates: Mapping[str, Floats]


def runs_on_same_images(store: Store, names: Sequence[str]) -> list[RunRecord]:
    """The records of the runs that are meant; IncomparableRuns unless each one's images are the first one's."""
    if not 2 <= len(names) <= MOST_RUNS:
        raise InputError(f"comparison: expected 2 to {MOST_RUNS} runs, got {len(names)}; see `cifar history`")
    records = [find_run(store, name) for name in names]
    for record in records[1:]:
        if not records[0].dataset or not record.dataset or records[0].dataset.sha256 != record.dataset.sha256:
            got = f"{_images_in_words(records[0])} and {_images_in_words(record)}"
            raise IncomparableRuns(f"comparison: expected two runs on the same images, got {got}; see `cifar history`")
    return records


def _images_in_words(record: RunRecord) -> str:
    return f"{record.dataset.name} {record.dataset.sha256[:12]}" if record.dataset else f"a {record.status} run"


def load_runs(store: Store, names: Sequence[str]) -> list[ComparedRun]:
    """The runs of these names, in this order; IncomparableRuns unless all are on the same images."""
    records = runs_on_same_images(store, names)
    return [_load(store, letter, record) for letter, record in zip(ascii_uppercase, records, strict=False)]


def _load(store: Store, letter: str, record: RunRecord) -> ComparedRun:
    assert record.dataset is not None
    refs = (artifact_of(store, record.run, name) for name in ("dataset", "weights", "predictions"))
    dataset, weights, predictions = refs
    table = store.open(predictions) / "predictions.parquet"
    tally = Tally(len(predicted_classes(table)))
    for labels, probabilities in read_probabilities(table, IMAGES_AT_ONCE):
        tally.add(labels, probabilities)
    return ComparedRun(
        letter=letter,
        run=record.run,
        identity=record.dataset,
        dataset=dataset,
        weights=_manifest(store, weights),
        evaluated=_manifest(store, predictions),
        predictions=read_table(table),
        calibration=calibration_table(tally.bins()).to_pandas(),
        scores=tally.scores(),
        replicates=tally.replicates(),
    )


def _manifest(store: Store, ref: ArtifactRef) -> Manifest:
    manifest = store.manifest(ref.name, ref.version)
    if manifest is None:
        raise DamagedArtifact(f"{ref}: its manifest is lost or damaged; run again to have it made anew")
    return manifest
