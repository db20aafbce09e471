"""The runs that are compared: what each one was made from, and what its predictions come to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import pandas as pd

from tasks.core.bootstrap import Floats
from tasks.core.comparison import runs_on_same_images
from tasks.core.identity import Identity
from tasks.core.metrics import Tally
from tasks.core.statistics import Estimate
from tasks.core.store import DamagedArtifact, Store
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.store.history import artifact_of
from tasks.core.store.runs import RunRecord
from tasks.core.tables import calibration_table, predicted_classes, read_probabilities, read_table

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
