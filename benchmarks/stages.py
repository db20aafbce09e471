"""Normalizing and evaluating: the tutorial's way beside ours, in turn."""

import shutil
from itertools import chain

from bench import Bench
from processes import ask
from rows import Row, percent, ratio, seconds

Measurement = dict[str, float]


def normalize(bench: Bench) -> list[Row]:
    """Every training image once through PIL, ToTensor and Normalize, beside arrays that are expanded in batches."""
    theirs: list[Measurement] = []
    ours: list[Measurement] = []
    for number in bench.rounds("normalize"):
        folders = [bench.folder / f"normalize-{side}-{number}" for side in ("theirs", "ours")]
        theirs.append(ask("theirs.py", "normalize", archive=bench.archive, into=folders[0]))
        ours.append(ask("ours.py", "normalize", archive=bench.archive, into=folders[1]))
        for folder in folders:
            shutil.rmtree(folder)
    whole = [[one["once_s"] + one["pass_s"] for one in side] for side in (theirs, ours)]
    passes = [[one["pass_s"] for one in side] for side in (theirs, ours)]
    return [
        Row(
            "normalize, from the archive to the end of a first pass",
            seconds(whole[0]),
            seconds(whole[1]),
            ratio(*whole),
            note="theirs extracts the archive, reads it and takes each training image through PIL, ToTensor and "
            "Normalize, without a loader; ours hashes and checks the archive, stores arrays and expands those of the "
            "training images, 1,000 at once.",
        ),
        Row("normalize, each further pass", seconds(passes[0]), seconds(passes[1]), ratio(*passes)),
    ]


def evaluate(bench: Bench) -> list[Row]:
    """The test images by the tutorial's loop, and by ours, which also leaves a table; both with the same weights."""
    weights = bench.folder / "weights"
    ask("ours.py", "new_weights", dataset=bench.dataset, into=weights)
    theirs: list[Measurement] = []
    ours: list[Measurement] = []
    for _ in bench.rounds("evaluate"):
        theirs.append(ask("theirs.py", "evaluate", root=bench.extracted, weights=weights))
        ours.append(ask("ours.py", "evaluate", dataset=bench.dataset, weights=weights))
    times = [[one["seconds"] for one in side] for side in (theirs, ours)]
    right = {percent([one["accuracy"]]) for one in chain(theirs, ours)}
    agree = f"both right about {right.pop()}" if len(right) == 1 else f"NOT the same accuracy: {sorted(right)}"
    note = (
        f"from stored weights of the untrained network ({agree}); theirs is the tutorial's loop as printed, batches of "
        "4 and 2 workers; ours also leaves a table of every prediction."
    )
    return [Row("evaluate", seconds(times[0]), seconds(times[1]), ratio(*times), "≥ 10 times", note)]
