"""A store from a notebook: tables, history and weights of any run, in one line each.

RUN is a run's id or how it begins, `current`, or `previous`. Every byte is checked before it is used.

    >>> from tasks.core.store import open_store
    >>> from tasks.core.reading import calibration, history, per_class, predictions, scores, weights
    >>> store = open_store("artifacts")

The table of the current run, and of the one that was current before:

    >>> per_class(store)[["class", "support"]].head(3)
        class  support
    0    disc       10
    1    ring       10
    2  square       10
    >>> per_class(store, "previous").columns[:4].tolist()
    ['class_index', 'class', 'support', 'correct']

Every prediction, with the probability of each class:

    >>> mistakes = predictions(store).query("not correct")
    >>> mistakes.nlargest(3, "confidence")[["index", "label", "predicted"]].shape
    (3, 3)

Scores over all classes with their 95% intervals, and how often the network is right by how sure it is:

    >>> sorted(scores(store))[:3]
    ['accuracy', 'brier_score', 'expected_calibration_error']
    >>> calibration(store)["images"].sum().item()
    100

The runs, newest first, and the weights of any of them:

    >>> history(store)[["status", "standing"]]
          status  standing
    0  completed   current
    1  completed  promoted
    >>> weights(store, "current")["fc3.bias"].shape
    torch.Size([10])
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd

from tasks.core.evaluation.intervals import Estimate
from tasks.core.evaluation.metrics import read_scores
from tasks.core.evaluation.paired import Comparison, compare
from tasks.core.reports.compare.runs import runs_on_same_images
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.history import HistoryRow, artifact_of
from tasks.core.store.history import history as history_rows

if TYPE_CHECKING:
    from torch import Tensor


def per_class(store: Store, run: str = "current") -> pd.DataFrame:
    """A run's accuracy for each class."""
    return read_table(payload(store, "per_class", run) / "per_class.parquet")


def predictions(store: Store, run: str = "current") -> pd.DataFrame:
    """A run's answer for every test image."""
    return read_table(payload(store, "predictions", run) / "predictions.parquet")


def scores(store: Store, run: str = "current") -> dict[str, Estimate]:
    """What a run's predictions come to over all classes: each score by name, with its interval."""
    return read_scores(payload(store, "per_class", run)).scores


def calibration(store: Store, run: str = "current") -> pd.DataFrame:
    """How often a run's network is right, for each bin of how sure it is."""
    return read_table(payload(store, "per_class", run) / "calibration.parquet")


def weights(store: Store, run: str = "current") -> "dict[str, Tensor]":
    """A run's trained weights, by name, on the CPU."""
    import torch  # takes seconds, and tables do without

    path = payload(store, "weights", run) / "cifar_net.pth"
    return cast("dict[str, Tensor]", torch.load(path, map_location="cpu", weights_only=True))


def history(store: Store) -> pd.DataFrame:
    """Every run, newest first: the columns of `HistoryRow`, times as UTC timestamps."""
    frame = pd.DataFrame([row.model_dump() for row in history_rows(store)], columns=list(HistoryRow.model_fields))
    return frame.assign(started=pd.to_datetime(frame["started"], utc=True))


def compare_runs(store: Store, first: str, second: str) -> Comparison:
    """What changes from one run's predictions to another's on the same images."""
    return compare(*(predictions(store, record.run) for record in runs_on_same_images(store, (first, second))))


def payload(store: Store, artifact: str, run: str = "current") -> Path:
    """The folder with the files of one of a run's artifacts; nothing in it may be changed."""
    return store.open(artifact_of(store, run, artifact))
