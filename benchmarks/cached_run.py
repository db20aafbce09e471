"""A whole run of the pipeline that reuses everything, beside a Prefect flow of two empty tasks."""

from bench import Bench
from processes import HERE, prefect_environment, say, seconds_of
from rows import Row, ratio, seconds

PIPELINE = HERE.parent / "flows" / "cifar_flow.py"
QUICK = ("--epochs", 1, "--batch-size", 500)  # the first run makes what the others reuse, and nobody times it


def cached_run(bench: Bench) -> list[Row]:
    """Whole processes in turn, each with a Prefect home of its own that a run before has warmed."""
    theirs = [HERE / "empty_flow.py"]
    ours = [PIPELINE, "--source", bench.archive, *QUICK]
    their_environment = prefect_environment(bench.folder / "their-prefect")
    our_environment = prefect_environment(bench.folder / "our-prefect", CIFAR_FLOW_STORE=str(bench.folder / "store"))
    say("cached-run: the runs before")
    seconds_of(*theirs, environment=their_environment)
    seconds_of(*ours, environment=our_environment)
    times: tuple[list[float], list[float]] = [], []
    for _ in bench.rounds("cached-run"):
        times[0].append(seconds_of(*theirs, environment=their_environment))
        times[1].append(seconds_of(*ours, environment=our_environment))
    note = "theirs is a Prefect flow of two empty tasks on Prefect's own temporary server; whole processes, warm homes."
    return [Row("a run that reuses everything", seconds(times[0]), seconds(times[1]), ratio(*times), note=note)]
