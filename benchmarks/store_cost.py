"""What the store costs, measured on one in a temporary folder: python benchmarks/store_cost.py measure '{…}'.

Beside it, what a user would do instead: a pandas script over the run records, and `sha256sum`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from processes import answer

from tasks.core.data.identity import Identity
from tasks.core.runtime.files import UNCERTAIN_NS
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import Build, Key
from tasks.core.store.runs import Run, RunRecord, Score, recording_run

SCRIPT = """
import glob, json, sys
import pandas as pd
records = [json.load(open(path)) for path in glob.glob(sys.argv[1] + "/runs/*.json")]
print(pd.json_normalize(records).sort_values("started")[["run", "started", "who", "score.correct"]].to_string())
"""
IMAGES_BYTES = 184_320_000  # CIFAR-10's
NOWHERE = Identity(kind="archive", name="images that were never there", sha256="0" * 64)

Sides = dict[str, list[float]]


def measure(runs: int, openings: int, pairs: int) -> dict[str, object]:
    """Seconds of each pair, theirs and ours in turn."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        found: dict[str, object] = {"megabytes": IMAGES_BYTES / 1e6}
        found["intact"] = _intact(store, openings, pairs)
        _make_runs(store, runs)
        cifar = Path(sys.executable).with_name("cifar")
        found["history"] = _in_turn(
            lambda: _seconds([sys.executable, "-c", SCRIPT, folder]),
            lambda: _seconds([cifar, "history", "--store", folder]),
            pairs,
        )
        return found


def _intact(store: Store, openings: int, pairs: int) -> Sides:
    ref = store.get_or_create(Build(Key(name="dataset"), _write_images)).ref
    images = store.open(ref) / "images.npy"

    def opened() -> float:
        os.utime(images)  # as a new process would find it, which has not hashed it yet
        time.sleep(UNCERTAIN_NS / 1e9)
        started = time.perf_counter()
        for _ in range(openings):
            store.open(ref)
        return time.perf_counter() - started

    return _in_turn(lambda: _seconds(["sha256sum", images]), opened, pairs)


def _in_turn(theirs: Callable[[], float], ours: Callable[[], float], pairs: int) -> Sides:
    found: Sides = {"theirs": [], "ours": []}
    for _ in range(pairs):
        found["theirs"].append(theirs())
        found["ours"].append(ours())
    return found


def _make_runs(store: Store, count: int) -> None:
    with recording_run(store, {"recipe": "tutorial", "seed": 1}, {}) as run:
        record: RunRecord = run.record
    for number in range(count - 1):
        other = record.model_copy(
            update={
                "run": f"20260101-000000-{number:06x}",
                "dataset": NOWHERE,
                "score": Score(correct=5_400, images=10_000),
            }
        )
        Run(store, other).save()


def _write_images(folder: Path) -> None:
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, IMAGES_BYTES, dtype=np.uint8))


def _seconds(command: Sequence[str | Path]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


if __name__ == "__main__":
    answer(measure)
