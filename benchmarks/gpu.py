"""Each recipe on a GPU, where there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from bench import Bench
from processes import ask, say
from rows import Row, percent, seconds

# airbench94_muon, https://github.com/KellerJordan/cifar10-airbench: seconds of training, by GPU. Its clock stands
# still while it compiles. On the A100 as published, with its evaluation; on the H200 as measured beside ours on
# 2026-11-26, without: the median of 25, which were right about 90.69% of test images that went through JPEG.
AIRBENCH_S = {"A100": 2.59, "H200": 1.25}
RECORD = "≤ 0.9 of airbench's time on the same GPU, mean of 20 seeds ≥ 94.0% on the original pixels"


@dataclass(frozen=True)
class Measurement:
    """A recipe with some settings in the places of its own; the first seed pays for CUDA's start and compiling."""

    recipe: str
    seeds: int
    goal: str = "–"
    settings: Mapping[str, object] = field(default_factory=dict)


MEASURED = {
    "tutorial": Measurement("tutorial", 3),
    "fast": Measurement("fast", 5),
    "record": Measurement("record", 21, RECORD),
    "record, compiled": Measurement("record", 21, RECORD, {"compile": "auto"}),
    "resnet18": Measurement("resnet18", 1, "≥ 95% on the original pixels"),
}


def gpu(bench: Bench) -> list[Row]:
    """Seconds and accuracy of each recipe on the device, seed after seed in one process a recipe."""
    name = ask("machine.py", "describe")["gpu"]
    if name is None:
        say("  not measured: no GPU here")
        return []
    return [_row(bench, what, measured, name) for what, measured in MEASURED.items()]


def _row(bench: Bench, what: str, measured: Measurement, name: str) -> Row:
    say(f"gpu: recipe {what}")
    asked = {"recipe": measured.recipe, "settings": measured.settings, "seeds": list(range(1, measured.seeds + 1))}
    found = ask("ours.py", "train", dataset=bench.dataset, device="cuda", **asked)
    first, *others = [one["seconds"] for one in found]
    warm = f", then {seconds(others)} each" if others else ""
    accuracies = [one["accuracy"] for one in found]
    is_record = measured.recipe == "record"
    theirs, share = _airbench(name, [one["steps_s"] for one in found[1:]]) if is_record else ("–", "")
    figure = f"mean {mean(accuracies):.2%} of {len(found)} seed(s){share}"
    ours = f"first {first:.1f} s{warm}, {percent(accuracies)}"
    return Row(f"recipe {what}", theirs, ours, figure, bench.goal(measured.goal))


def _airbench(name: str, steps_s: Sequence[float]) -> tuple[str, str]:
    """Their time, and ours beside it by the same clock: from whitening to the last step."""
    known = next((gpu for gpu in AIRBENCH_S if gpu in name), "A100")
    same = "" if known in name else ", NOT the same GPU"
    share = f"; steps alone {seconds(steps_s)}, {median(steps_s) / AIRBENCH_S[known]:.2f} of airbench's{same}"
    return f"airbench94_muon on an {known}: {AIRBENCH_S[known]} s", share
