"""What the public API reads of a run in an open store."""

from pathlib import Path

import pandas as pd

from tasks.core import api
from tasks.core.evaluation.intervals import Estimate
from tasks.core.store import Store


def run_of(store: Store, run: str = "current") -> api.Run:
    return api.Store(store).run(run)


def predictions(store: Store, run: str = "current") -> pd.DataFrame:
    return run_of(store, run).predictions


def scores(store: Store, run: str = "current") -> dict[str, Estimate]:
    return run_of(store, run).scores


def payload(store: Store, artifact: str, run: str = "current") -> Path:
    return run_of(store, run).path(artifact)
