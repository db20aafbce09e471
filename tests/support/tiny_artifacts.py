"""Artifacts and runs of a few bytes in the real store, with real run records and the real gate; without torch."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from tasks.core.config import Promote
from tasks.core.data.identity import Identity, Kind
from tasks.core.evaluation.paired import compare
from tasks.core.evaluation.tables import predictions_table
from tasks.core.promotion_gate import Baseline, Verdict, promotion_gate
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import ArtifactRef, Build, Key
from tasks.core.store.runs import Run, recording_run


def build_of(payload: Mapping[str, bytes], name: str = "x", **ingredients: Any) -> Build:
    """A build that writes `payload`, which is no part of the key; like the bytes of a GPU, it may differ next time."""

    def fill(folder: Path) -> None:
        for file, content in payload.items():
            (folder / file).write_bytes(content)

    return Build(Key(name=name, **ingredients), fill)


def refreshing(store: Store, wanted: bool = True) -> Store:
    """The store with a refresh of everything that `build_of` describes."""
    return replace(store, refresh="") if wanted else store


def identity_of(kind: Kind = "archive", images: str = "tiny") -> Identity:
    return Identity(kind=kind, name=f"{kind} images", sha256=hashlib.sha256(images.encode()).hexdigest())


def correct_predictions(word: str, images: int = 12) -> list[bool]:
    """Which of a few images a run predicts correctly, by its word: two of three, so no run is significantly worse."""
    first = hashlib.sha256(word.encode()).digest()[0] % images
    return [(index + first) % 3 > 0 for index in range(images)]


def first_correct(count: int, images: int = 1000) -> list[bool]:
    """The first `count` images correct, so that a lower count adds mistakes and removes none."""
    return [index < count for index in range(images)]


def baseline_of(count: int, best: int = 700) -> Baseline:
    """A best run, and a candidate that gets `count` of the same 1,000 images right."""
    files = (io.BytesIO(predictions_bytes(first_correct(each))) for each in (best, count))
    return Baseline("20260101-111111-fedcba", compare(*(pd.read_parquet(file) for file in files)))


def predictions_bytes(correct: Sequence[bool]) -> bytes:
    """A real `predictions.parquet` of two classes in turn."""
    labels = np.arange(len(correct), dtype=np.uint8) % 2
    predicted = np.where(correct, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[predicted] * np.float32(0.5) + np.float32(0.25)
    file = io.BytesIO()
    pq.write_table(predictions_table(labels, probabilities, ("ant", "bee")), file)
    return file.getvalue()


def run_payloads(word: str, identity: Identity, correct: Sequence[bool] | None = None) -> dict[str, dict[str, bytes]]:
    """The payload of each artifact of a run; all but the dataset contain the run's `word`."""
    description = json.dumps({"identity": identity.model_dump()}).encode()
    content = word.encode()
    return {
        "dataset": {"dataset.json": description},
        "weights": {"cifar_net.pth": b"weights of " + content},
        "predictions": {"predictions.parquet": predictions_bytes(correct or correct_predictions(word))},
        "per_class": {"per_class.parquet": b"classes of " + content, "scores.json": b"scores of " + content},
        "report": {"report.html": b"report of " + content, "metrics.json": b"metrics of " + content},
    }


def build_artifact(store: Store, name: str, payload: Mapping[str, bytes], *, refresh: bool = False) -> ArtifactRef:
    settings = {file: content.hex() for file, content in payload.items()}
    return refreshing(store, refresh).get_or_create(build_of(payload, name, settings=settings)).ref


def finish_run(
    run: Run,
    word: str,
    identity: Identity,
    policy: Promote = "auto",
    before_report: Callable[[], object] = lambda: None,
    correct: Sequence[bool] | None = None,
    tolerance: float = 1.0,
) -> Verdict:
    """Build a run's artifacts and send it through the promotion gate."""
    payloads = run_payloads(word, identity, correct)
    report = payloads.pop("report")
    run.add_artifacts(*(build_artifact(run.store, name, payload) for name, payload in payloads.items()))
    with promotion_gate(run, policy, tolerance) as verdict:
        before_report()
        run.add_artifacts(build_artifact(run.store, "report", report))
    return verdict


def finished_run(
    root: Path | str,
    word: str,
    identity: Identity | None = None,
    policy: Promote = "auto",
    correct: Sequence[bool] | None = None,
    tolerance: float = 1.0,
) -> Run:
    """A whole run, from opening the store."""
    with recording_run(open_store(root), {"word": word}, {}) as run:
        finish_run(run, word, identity or identity_of(), policy, correct=correct, tolerance=tolerance)
    return run
