"""Measure it all, side by side with what a user would use instead, and leave the tables in benchmarks/RESULTS.md.

python benchmarks/run.py --source PATH/cifar-10-python.tar.gz --pairs 3
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import cached_run
import gpu
import growth
import page
import stages
import store
import streaming
import training
from bench import Bench
from processes import HERE, Failed, ask, say
from rows import Row, as_markdown

Measurement = Callable[[Bench], Row | list[Row]]
MEASUREMENTS: dict[str, Measurement] = {
    "tutorial": training.tutorial,
    "sooner": training.sooner,
    "fast": training.fast,
    "normalize": stages.normalize,
    "evaluate": stages.evaluate,
    "cached-run": cached_run.cached_run,
    "growth": growth.growth,
    "streaming": streaming.streaming,
    "store": store.store,
    "gpu": gpu.gpu,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, help="an archive in the official layout; generated images if unset")
    parser.add_argument("--pairs", type=int, default=2, help="how often each pair is measured; the median is told")
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=[], metavar="NAME", help=_names())
    parser.add_argument(
        "--results", type=Path, help="where the tables are written; RESULTS.md beside this file, unless --only is given"
    )
    arguments = parser.parse_args()
    if arguments.pairs < 1:
        parser.error(f"--pairs: expected at least 1, got {arguments.pairs}")
    if arguments.source and not arguments.source.is_file():
        parser.error(f"--source: expected an archive, got {arguments.source}")
    chosen = tuple(arguments.only or MEASUREMENTS)
    with tempfile.TemporaryDirectory(prefix="bench-of-cifar-") as folder:
        bench = Bench(Path(folder), arguments.source and arguments.source.resolve(), arguments.pairs, chosen)
        head = heading(bench)
        rows: dict[str, list[Row]] = {page.CPU: [], page.GPU: []}
        for name in (name for name in MEASUREMENTS if name in chosen):
            rows[page.GPU if name == "gpu" else page.CPU] += measure(name, bench)
    sections = {title: f"{head}\n{as_markdown(found)}" for title, found in rows.items() if found}
    print(page.updated("", sections))
    if results := arguments.results or (None if arguments.only else HERE / "RESULTS.md"):
        standing = results.read_text(encoding="utf-8") if results.exists() else ""
        results.write_text(page.updated(standing, sections), encoding="utf-8")
    return int(any(row.failed for found in rows.values() for row in found))


def measure(name: str, bench: Bench) -> Iterable[Row]:
    """A measurement's rows; one that fails must not take the others with it."""
    say(f"{name} …")
    try:
        found = MEASUREMENTS[name](bench)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the exit code is 1
        found = Row(name, figure=f"failed: {error}", failed=True)
    rows = [found] if isinstance(found, Row) else found
    for row in rows:
        say(f"  {row.what}: theirs {row.theirs}; ours {row.ours}; {row.figure}")
    return rows


def heading(bench: Bench) -> str:
    """What was measured, where, when, on what images, and how to read the table."""
    kind, name = bench.identity["kind"], bench.identity["name"]
    note = "\n**These are generated images and not CIFAR-10: accuracies on them are no goals.**\n"
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"- Machine: {ask('machine.py', 'describe')['words']}; load at the start {loads}\n"
        f"- Date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n"
        f"- Dataset: {name}, sha256 {bench.identity['sha256']}\n"
        f"- Pairs: {bench.pairs}\n"
        f"{note if kind == 'generated' else ''}"
    )


def _names() -> str:
    return f"measure these alone, of {', '.join(MEASUREMENTS)}"


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except Failed as failure:  # before anything was measured
        raise SystemExit(f"error: {failure}") from None
