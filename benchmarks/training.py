"""Training: the tutorial's script beside ours, in turn, in as many rounds as pairs are asked for."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from bench import Bench
from processes import HERE, Failed, ask, run
from rows import Row, percent, ratio, seconds

ENOUGH = 0.55  # of the test images
SEEDS = (1, 2, 3)  # of what is to be right about so many
CLOCKS = "The script's clock runs over its training loop, ours from stored arrays to stored weights."


@dataclass(frozen=True)
class Preset:
    """A recipe of ours, with some settings in the places of its own."""

    recipe: str
    settings: Mapping[str, object] = field(default_factory=dict)


# What is right about 55% of the test images soonest.
SOONER = Preset("fast", {"steps": 40, "batch_size": 250, "learning_rate": 0.24})


@dataclass(frozen=True)
class Trained:
    """Seconds from the first batch on, and accuracy on the test images in [0, 1]."""

    seconds: float
    accuracy: float


def tutorial(bench: Bench) -> Row:
    """The same recipe: batches of 4, the same updates, float32."""
    script, ours = _side_by_side(bench, "tutorial")
    goal = "≥ 3 times, wished 5"
    note = "the same batches of 4, the same updates, float32. " + CLOCKS
    return Row("tutorial recipe: training", _told(script), _told(ours), _times(script, ours), goal, note)


def sooner(bench: Bench) -> Row:
    """How much sooner some preset of ours is right about 55% of the test images."""
    script, ours = _side_by_side(bench, "sooner")
    reached = statistics.median(one.accuracy for one in ours) >= ENOUGH
    by_round = [ours[start : start + len(SEEDS)] for start in range(0, len(ours), len(SEEDS))]
    medians = [statistics.median(one.seconds for one in one_round) for one_round in by_round]
    figure = f"reached, {ratio([one.seconds for one in script], medians)}" if reached else "NOT reached"
    goal = bench.goal("≥ 10 times, wished 20")
    note = f"ours is {_in_words(SOONER)}, seeds {SEEDS}; reached if the median accuracy is at least that. {CLOCKS}"
    return Row(f"time to {ENOUGH:.0%} of the test images", _told(script), _told(ours), figure, goal, note)


def fast(bench: Bench) -> Row:
    """The accuracy of recipe `fast`, and whether the script's own training time was enough for it."""
    script, ours = _side_by_side(bench, "fast")
    inside = sum(our.seconds <= their.seconds for their, our in zip(script, ours, strict=True))
    figure = f"{percent([one.accuracy for one in ours])}; inside the script's time in {inside} of {bench.pairs}"
    goal = bench.goal("≥ 80% inside, wished 85%")
    return Row("recipe fast in the script's training time", _told(script), _told(ours), figure, goal, CLOCKS)


def _script(bench: Bench, _: int) -> list[Trained]:
    numbers = run(HERE / "tutorial_script.py", bench.extracted).splitlines()[-1].split()
    return [Trained(*map(float, numbers))]


def _ours(bench: Bench, preset: Preset, *seeds: int) -> list[Trained]:
    """One process a seed, so that each begins anew."""
    asked = {"dataset": bench.dataset, "recipe": preset.recipe, "settings": preset.settings, "device": "cpu"}
    found = [ask("ours.py", "train", **asked, seeds=[seed])[0] for seed in seeds]
    return [Trained(one["seconds"], one["accuracy"]) for one in found]


SCRIPT = "the tutorial's script"
CONTENDERS: dict[str, Callable[[Bench, int], list[Trained]]] = {
    SCRIPT: _script,
    "tutorial": lambda bench, number: _ours(bench, Preset("tutorial"), number),
    "sooner": lambda bench, _: _ours(bench, SOONER, *SEEDS),
    "fast": lambda bench, number: _ours(bench, Preset("fast"), number),
}


@dataclass(frozen=True)
class Rounds:
    """What each contender's trainings came to, round by round, or why it has none."""

    trained: Mapping[str, list[Trained]]
    failures: Mapping[str, Failed]


@cache
def _rounds(bench: Bench) -> Rounds:
    """All that are asked for in turn, so that whatever else the machine does meets every one of them."""
    trained: dict[str, list[Trained]] = defaultdict(list)
    failures: dict[str, Failed] = {}
    names = [name for name in CONTENDERS if name == SCRIPT or name in bench.chosen]
    for number in bench.rounds(", ".join(names)):
        for name in (name for name in names if name not in failures):
            try:
                trained[name] += CONTENDERS[name](bench, number)
            except Failed as failure:
                failures[name] = failure
    return Rounds(trained, failures)


def _side_by_side(bench: Bench, name: str) -> tuple[list[Trained], list[Trained]]:
    """The script's trainings and ours, oldest first."""
    rounds = _rounds(bench)
    for each in (SCRIPT, name):
        if failure := rounds.failures.get(each):
            raise failure
    return rounds.trained[SCRIPT], rounds.trained[name]


def _told(found: list[Trained]) -> str:
    return f"{seconds([one.seconds for one in found])}, {percent([one.accuracy for one in found])}"


def _times(script: list[Trained], ours: list[Trained]) -> str:
    return ratio([one.seconds for one in script], [one.seconds for one in ours])


def _in_words(preset: Preset) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in preset.settings.items())
    return f"recipe {preset.recipe}" + (f" with {settings}" if settings else "")
