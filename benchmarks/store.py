"""What the store costs, as rows."""

from bench import Bench
from processes import ask, say
from rows import Row, ratio, seconds

RUNS = 1_000
OPENINGS = 5  # about as often as one run looks at its dataset


def store(bench: Bench) -> list[Row]:
    """`cifar history` beside a pandas script, and finding a dataset intact beside sha256sum."""
    say(f"store: {RUNS:,} runs, {bench.pairs} pair(s)")
    found = ask("store_cost.py", "measure", runs=RUNS, openings=OPENINGS, pairs=bench.pairs)
    history, intact = found["history"], found["intact"]
    return [
        Row(
            f"history of {RUNS:,} runs",
            seconds(history["theirs"]),
            seconds(history["ours"]),
            ratio(history["theirs"], history["ours"]),
            note="theirs is a pandas script over the run records; whole processes.",
        ),
        Row(
            f"{found['megabytes']:.0f} MB of images found intact {OPENINGS} times",
            seconds(intact["theirs"]),
            seconds(intact["ours"]),
            ratio(intact["theirs"], intact["ours"]),
            note="as often as one run looks at them; theirs is sha256sum, once.",
        ),
    ]
