"""Artifacts and runs of a few bytes, made by the real store, run records and promotion; they need no torch."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.core.artifact import ArtifactRef, Key, Log, Stage
from tasks.core.config import Promote
from tasks.core.identity import Identity, Kind
from tasks.core.promotion import Verdict, judged
from tasks.core.runs import Run, recorded_run
from tasks.core.store import Store, open_store


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


def results(word: str, identity: Identity) -> dict[str, dict[str, bytes]]:
    """The payload of each artifact of a run: all but the dataset's speak the run's `word`."""
    description = json.dumps({"identity": identity.model_dump()}).encode()
    said = word.encode()
    return {
        "dataset": {"dataset.json": description},
        "weights": {"cifar_net.pth": b"weights of " + said},
        "predictions": {"predictions.parquet": b"predictions of " + said},
        "per_class": {"per_class.parquet": b"classes of " + said},
        "report": {"report.html": b"report of " + said, "metrics.json": b"metrics of " + said},
    }


def make_artifact(store: Store, name: str, payload: Mapping[str, bytes], *, refresh: bool = False) -> ArtifactRef:
    settings = {file: content.decode() for file, content in payload.items()}
    return store.get_or_create(stage_of(payload, name, settings=settings), quiet, refresh=refresh).ref


def finish(
    run: Run,
    word: str,
    identity: Identity,
    policy: Promote = "auto",
    log: Log = quiet,
    before_report: Callable[[], object] = lambda: None,
) -> Verdict:
    """Make a run's artifacts, have it judged, and promoted if that is the verdict."""
    payloads = results(word, identity)
    report = payloads.pop("report")
    run.keep(*(make_artifact(run.store, name, payload) for name, payload in payloads.items()))
    with judged(run, policy, log) as verdict:
        before_report()
        run.keep(make_artifact(run.store, "report", report))
    return verdict


def finished_run(
    root: Path, word: str, identity: Identity | None = None, policy: Promote = "auto", log: Log = quiet
) -> Run:
    """A whole run, from opening the store on."""
    with recorded_run(open_store(root), {"word": word}, {}) as run:
        finish(run, word, identity or identity_of(), policy, log)
    return run
