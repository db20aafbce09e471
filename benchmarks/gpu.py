"""Each recipe on a GPU, where there is one."""

from bench import Bench
from processes import ask, say
from rows import Row, percent, seconds

AIRBENCH_S = 2.59  # airbench94_muon on an A100, 94.01%: https://github.com/KellerJordan/cifar10-airbench
AIRBENCH_GPU = "A100"
GOALS = {
    "tutorial": "–",
    "fast": "–",
    "record": "≤ 0.9 of airbench's time on the same GPU, mean of 20 seeds ≥ 94.0%",
    "resnet18": "≥ 95%",
}
SEEDS = 21  # the first compiles
LIMIT_S = 60.0  # after which no further seed is begun


def gpu(bench: Bench) -> list[Row]:
    """Seconds and accuracy of each recipe on the device, seed after seed in one process a recipe."""
    name = ask("machine.py", "describe")["gpu"]
    if name is None:
        return [Row(f"GPU: recipe {recipe}", figure="not measured (no GPU)", goal=GOALS[recipe]) for recipe in GOALS]
    return [_row(bench, recipe, name) for recipe in GOALS]


def _row(bench: Bench, recipe: str, name: str) -> Row:
    say(f"gpu: recipe {recipe}")
    asked = {"dataset": bench.dataset, "recipe": recipe, "settings": {}, "device": "cuda"}
    found = ask("ours.py", "train", **asked, seeds=list(range(1, SEEDS + 1)), limit_s=LIMIT_S)
    first, *others = [one["seconds"] for one in found]
    warm = f", then {seconds(others)} each" if others else ""
    accuracies = [one["accuracy"] for one in found]
    mean = sum(accuracies) / len(accuracies)
    figure, theirs = f"mean {mean:.2%} of {len(found)} seed(s)", "–"
    if recipe == "record":
        theirs = f"airbench94_muon as published: {AIRBENCH_S} s, 94.01%, on an {AIRBENCH_GPU}"
        share = sorted(others or [first])[len(others) // 2] / AIRBENCH_S
        same = "the same GPU" if AIRBENCH_GPU in name else "NOT the same GPU"
        figure += f"; {share:.2f} of airbench's time, {same}"
    ours = f"first {first:.1f} s, compiling included{warm}, {percent(accuracies)}"
    return Row(f"GPU: recipe {recipe} on {name}", theirs, ours, figure, bench.goal(GOALS[recipe]))
