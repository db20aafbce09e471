"""Artifacts and runs of a few bytes, made by the real store, run records and gate; they need no torch."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tasks.core.config import Promote
from tasks.core.data.identity import Identity, Kind
from tasks.core.evaluation.tables import predictions_table
from tasks.core.promotion_gate import Verdict, promotion_gate
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import ArtifactRef, Key, Log, Stage
from tasks.core.store.runs import Run, recording_run


def quiet(_: str) -> None:
    """A log that nobody reads."""


def stage_of(payload: Mapping[str, bytes], name: str = "x", **ingredients: Any) -> Stage:
    """A stage that writes `payload`; the key does not know of it, as of any bytes that a GPU would not repeat."""

    def build(folder: Path, _: Log) -> None:
        for file, content in payload.items():
            (folder / file).write_bytes(content)

    return Stage(Key(name=name, **ingredients), build)


def identity_of(kind: Kind = "archive", images: str = "tiny") -> Identity:
    return Identity(kind=kind, name=f"{kind} images", sha256=hashlib.sha256(images.encode()).hexdigest())


def correct_by(word: str, images: int = 12) -> list[bool]:
    """Which of a few images a run got right, told from its word; two of three, so that no run is really worse."""
    first = hashlib.sha256(word.encode()).digest()[0] % images
    return [(index + first) % 3 > 0 for index in range(images)]


def predictions_bytes(correct: Sequence[bool]) -> bytes:
    """A real `predictions.parquet` of two classes in turn."""
    labels = np.arange(len(correct), dtype=np.uint8) % 2
    predicted = np.where(correct, labels, 1 - labels)
    probabilities = np.eye(2, dtype=np.float32)[predicted] * np.float32(0.5) + np.float32(0.25)
    file = io.BytesIO()
    pq.write_table(predictions_table(labels, probabilities, ("ant", "bee")), file)
    return file.getvalue()


def results(word: str, identity: Identity, correct: Sequence[bool] | None = None) -> dict[str, dict[str, bytes]]:
    """The payload of each artifact of a run: all but the dataset's speak the run's `word`."""
    description = json.dumps({"identity": identity.model_dump()}).encode()
    said = word.encode()
    return {
        "dataset": {"dataset.json": description},
        "weights": {"cifar_net.pth": b"weights of " + said},
        "predictions": {"predictions.parquet": predictions_bytes(correct or correct_by(word))},
        "per_class": {"per_class.parquet": b"classes of " + said, "scores.json": b"scores of " + said},
        "report": {"report.html": b"report of " + said, "metrics.json": b"metrics of " + said},
    }


def make_artifact(store: Store, name: str, payload: Mapping[str, bytes], *, refresh: bool = False) -> ArtifactRef:
    settings = {file: content.hex() for file, content in payload.items()}
    return store.get_or_create(stage_of(payload, name, settings=settings), quiet, refresh=refresh).ref


def finish(
    run: Run,
    word: str,
    identity: Identity,
    policy: Promote = "auto",
    log: Log = quiet,
    before_report: Callable[[], object] = lambda: None,
    correct: Sequence[bool] | None = None,
    tolerance: float = 1.0,
) -> Verdict:
    """Make a run's artifacts, have it judged, and promoted if that is the verdict."""
    payloads = results(word, identity, correct)
    report = payloads.pop("report")
    run.keep(*(make_artifact(run.store, name, payload) for name, payload in payloads.items()))
    with promotion_gate(run, policy, tolerance, log) as verdict:
        before_report()
        run.keep(make_artifact(run.store, "report", report))
    return verdict


def finished_run(
    root: Path | str,
    word: str,
    identity: Identity | None = None,
    policy: Promote = "auto",
    log: Log = quiet,
    correct: Sequence[bool] | None = None,
    tolerance: float = 1.0,
) -> Run:
    """A whole run, from opening the store on."""
    with recording_run(open_store(root, quiet), {"word": word}, {}, quiet) as run:
        finish(run, word, identity or identity_of(), policy, log, correct=correct, tolerance=tolerance)
    return run
