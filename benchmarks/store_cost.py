"""What the store costs: `cifar history` over many runs, and finding a dataset intact.

Beside each, what a user would do instead: a pandas script over the run records, and `sha256sum`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cyclopts
import numpy as np

from tasks.core.files import UNCERTAIN_NS
from tasks.core.identity import Identity
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import Key, Log, Stage
from tasks.core.store.runs import Run, RunRecord, Score, recorded_run

SCRIPT = """
import glob, json, sys
import pandas as pd
records = [json.load(open(path)) for path in glob.glob(sys.argv[1] + "/runs/*.json")]
print(pd.json_normalize(records).sort_values("started")[["run", "started", "who", "score.correct"]].to_string())
"""
IMAGES_BYTES = 184_320_000  # CIFAR-10's
OPENINGS = 5  # about as often as one run looks at its dataset
NOWHERE = Identity(kind="archive", name="images that were never there", sha256="0" * 64)


def measure(
    *,
    runs: Annotated[int, cyclopts.Parameter(help="Runs in the history.")] = 1_000,
    repeats: Annotated[int, cyclopts.Parameter(help="Times that each is measured; the median counts.")] = 5,
) -> None:
    """Measure on a store in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        _make_runs(store, runs)
        cifar = Path(sys.executable).with_name("cifar")
        ours = _seconds([cifar, "history", "--store", folder], repeats)
        theirs = _seconds([sys.executable, "-c", SCRIPT, folder], repeats)
        print(
            f"history of {runs:,} runs: cifar {ours:.2f} s, a pandas script {theirs:.2f} s, ratio {theirs / ours:.2f}"
        )

        ref = store.get_or_create(Stage(Key(name="dataset"), _write_images), print).ref
        images = store.open(ref) / "images.npy"
        time.sleep(UNCERTAIN_NS / 1e9)
        openings = []
        for _ in range(repeats):
            os.utime(images)  # as a new process would, which has not hashed it yet
            time.sleep(UNCERTAIN_NS / 1e9)
            started = time.perf_counter()
            for _ in range(OPENINGS):
                store.open(ref)
            openings.append(time.perf_counter() - started)
        ours, theirs = statistics.median(openings), _seconds(["sha256sum", images], repeats)
        print(
            f"{IMAGES_BYTES / 1e6:.0f} MB of images found intact {OPENINGS} times in a run: {ours:.2f} s, "
            f"sha256sum once {theirs:.2f} s, ratio {theirs / ours:.2f}"
        )


def _make_runs(store: Store, count: int) -> None:
    with recorded_run(store, {"recipe": "tutorial", "seed": 1}, {}) as run:
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


def _write_images(folder: Path, _: Log) -> None:
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, IMAGES_BYTES, dtype=np.uint8))


def _seconds(command: Sequence[str | Path], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


if __name__ == "__main__":
    cyclopts.run(measure)
