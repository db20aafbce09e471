"""Loads the runs of a comparison: their manifests, predictions and scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import pandas as pd

from tasks.core.data.identity import Identity
from tasks.core.errors import InputError
from tasks.core.evaluation.bootstrap import Floats
from tasks.core.evaluation.intervals import Estimate
from tasks.core.evaluation.metrics import ScoreAccumulator
from tasks.core.evaluation.paired import IncomparableRuns
from tasks.core.evaluation.tables import calibration_table, predicted_classes, read_probabilities
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Manifest
from tasks.core.store.history import find_artifact, find_run
from tasks.core.store.runs import RunRecord

MAX_RUNS = len(ascii_uppercase)
CHUNK_IMAGES = 1_000


@dataclass(frozen=True)
class ComparedRun:
    """A run, named by a letter; scores, bootstrap replicates and calibration are computed from its predictions."""

    letter: str
    run: str
    identity: Identity
    dataset: ArtifactRef
    weights_manifest: Manifest
    predictions_manifest: Manifest
    predictions: pd.DataFrame
    calibration: pd.DataFrame
    scores: Mapping[str, Estimate]
    replicates: Mapping[str, Floats]


def runs_on_same_images(store: Store, names: Sequence[str]) -> list[RunRecord]:
    """Return the records of runs; raise IncomparableRuns if their images are not those of the first run."""
    if not 2 <= len(names) <= MAX_RUNS:
        raise InputError("compare", expected=f"2 to {MAX_RUNS} runs", got=str(len(names)), advice="see `cifar history`")
    first, *others = (find_run(store, name) for name in names)
    for other in others:
        if not first.dataset or not other.dataset or first.dataset.sha256 != other.dataset.sha256:
            got = f"{_describe_images(first)} and {_describe_images(other)}"
            raise IncomparableRuns("compare", expected="runs on the same images", got=got, advice="see `cifar history`")
    return [first, *others]


def _describe_images(record: RunRecord) -> str:
    return f"{record.dataset.name} {record.dataset.sha256[:12]}" if record.dataset else f"a {record.status} run"


def load_runs(store: Store, names: Sequence[str]) -> list[ComparedRun]:
    """Load runs on the same images, in this order, with letters from A on."""
    records = runs_on_same_images(store, names)
    return [_load(store, letter, record) for letter, record in zip(ascii_uppercase, records, strict=False)]


def _load(store: Store, letter: str, record: RunRecord) -> ComparedRun:
    assert record.dataset is not None
    dataset, weights, predictions = (
        find_artifact(store, record.run, name) for name in ("dataset", "weights", "predictions")
    )
    table = store.open(predictions) / "predictions.parquet"
    accumulator = ScoreAccumulator(len(predicted_classes(table)))
    for labels, probabilities in read_probabilities(table, CHUNK_IMAGES):
        accumulator.add(labels, probabilities)
    return ComparedRun(
        letter=letter,
        run=record.run,
        identity=record.dataset,
        dataset=dataset,
        weights_manifest=store.manifest_of(weights),
        predictions_manifest=store.manifest_of(predictions),
        predictions=read_table(table),
        calibration=calibration_table(accumulator.bins).to_pandas(),
        scores=accumulator.scores(),
        replicates=accumulator.replicates(),
    )
