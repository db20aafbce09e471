"""Growth: seconds and peak memory of each stage with more and more data."""

import shutil
from collections.abc import Sequence

from bench import Bench
from processes import ask, say
from rows import Row

TIMES = (1, 2, 5, 10)
STAGES = {"normalize": "all arrays", "train": "the training images", "evaluate": "the test images"}
MEGABYTE = 1e6

Measurement = dict[str, float]


def growth(bench: Bench) -> list[Row]:
    """One run for each size and stage, each in a process of its own."""
    found: dict[str, list[Measurement]] = {name: [] for name in STAGES}
    folder, archive = bench.folder / "grown", bench.folder / "grown.tar"
    few: dict[str, float] = {}
    for times in (None, *TIMES):
        say(f"growth: {f'{times} times the data' if times else 'a batch'}")
        folder.mkdir()
        ask("grown.py", "repeat", archive=bench.archive, times=times, into=archive)
        for name, measured in found.items():
            one = ask("grown.py", "stage", name=name, archive=archive, folder=folder)
            if times is None:
                few[name] = one["peak_bytes"] - one["held_bytes"]
            else:
                measured.append({**one, "peak_bytes": one["peak_bytes"] - few[name]})
        shutil.rmtree(folder)
        archive.unlink()
    return [_row(name, measured) for name, measured in found.items()]


def _row(name: str, measured: Sequence[Measurement]) -> Row:
    held = [one["held_bytes"] / MEGABYTE for one in measured]
    peaks = [one["peak_bytes"] / MEGABYTE for one in measured]
    shares = [peak / size for peak, size in zip(peaks, held, strict=True)]
    more = (peaks[-1] - peaks[0]) / (held[-1] - held[0])
    sizes = ", ".join(map(str, TIMES))
    slower = measured[-1]["seconds"] / measured[0]["seconds"]
    epoch = "one epoch of the tutorial's network in batches of 500; " if name == "train" else ""
    return Row(
        f"growth: {name}, {sizes} times the data",
        "–",
        f"{', '.join(format(one['seconds'], '.2f') for one in measured)} s; peak {_list(peaks)} MB",
        f"{slower:.1f} times the seconds for {TIMES[-1]} times the data; peak "
        f"{', '.join(format(share, '.2f') for share in shares)} of the bytes, and {more:.2f} more for each more",
        "linear, peak < 1.5 of the bytes",
        f"{epoch}one process each; peak resident memory beyond what the stage takes for one batch; the bytes it must "
        f"hold are those of {STAGES[name]}: {_list(held)} MB.",
    )


def _list(values: Sequence[float]) -> str:
    return ", ".join(format(value, ",.0f") for value in values)
