"""How a comparison is said: the same on the page, in Prefect's UI and in the log."""

from collections.abc import Iterator
from html import escape

from tasks.core.evaluation.intervals import Difference, Estimate
from tasks.core.evaluation.paired import ClassComparison, PairedOutcome
from tasks.core.reports.compare.provenance_diff import Setting
from tasks.core.reports.compare.summary import Change, RunFacts, Summary, Verdict
from tasks.core.reports.html import interval, percent

SHARES = ("accuracy", "expected_calibration_error")  # the scores that are told in percent, and changes in points
CLAUSES: dict[Verdict, str] = {
    "better": "{} is more accurate than {}",
    "worse": "{} is less accurate than {}",
    "undecided": "{} and {} are not distinguishable in accuracy",
    "same answers": "{} and {} give the same answer for every image",
}
NOT_CIFAR10 = "GENERATED IMAGES, NOT CIFAR-10: no number here says anything about CIFAR-10"


def verdicts(summary: Summary) -> str:
    """One clause a run, as in: B is more accurate than A, C and A are not distinguishable in accuracy."""
    first = summary.runs[0].letter
    return ", ".join(CLAUSES[change.verdict].format(change.letter, first) for change in summary.changes)


def evidence(outcome: PairedOutcome) -> str:
    return (
        f"{signed(100 * outcome.difference.value)} points of accuracy "
        f"(95% interval {points(outcome.difference)}), McNemar p {outcome.mcnemar_p:.2g}: "
        f"{outcome.fixed:,} images fixed and {outcome.broken:,} broken of {outcome.images:,}"
    )


def lines(summary: Summary) -> Iterator[str]:
    """A few lines for the log."""
    for run in summary.runs:
        yield f"{run.letter}: run {run.run}, {run_accuracy(run)}"
    for change in summary.changes:
        yield f"{change.letter} against {summary.runs[0].letter}: {evidence(change.comparison)}"
    yield verdicts(summary)
    if summary.generated_images:
        yield NOT_CIFAR10


def markdown(summary: Summary) -> str:
    """The same as a table, for Prefect's UI."""
    changes: list[Change | None] = [None, *summary.changes]
    rows = [
        ("run", "accuracy", "change", "95% interval", "McNemar p", "fixed", "broken", "log loss", "calibration error"),
        ("---", *["---:"] * 8),
        *(_row(run, change) for run, change in zip(summary.runs, changes, strict=True)),
    ]
    names = ", ".join(setting_name(setting.name) for setting in summary.differences.settings)
    parts = [
        *([f"**{NOT_CIFAR10}**"] if summary.generated_images else []),
        f"**{verdicts(summary)}**, on {summary.images:,} test images of {summary.dataset.name}.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
        f"Differing: {names or 'no setting'}"
        + (f"; {len(summary.differences.code):,} symbols of the code" if summary.differences.code else "")
        + ". Changes are against the first run, in points of accuracy.",
    ]
    return "\n\n".join(escape(part, quote=False) for part in parts)


def moved(classes: tuple[ClassComparison, ...]) -> list[ClassComparison]:
    """The classes whose change is more than chance, as far as each interval for itself tells; the largest first."""
    found = [each for each in classes if each.difference.low > 0 or each.difference.high < 0]
    return sorted(found, key=lambda each: -abs(each.difference.value))


def run_accuracy(run: RunFacts) -> str:
    found = run.scores["accuracy"]
    return f"{percent(found.value)} accuracy (95% interval {interval(found.low, found.high)})"


def score(name: str, found: Estimate) -> str:
    return percent(found.value) if name in SHARES else f"{found.value:.3f}"


def score_interval(name: str, found: Estimate) -> str:
    if name in SHARES:
        return interval(found.low, found.high)
    return "–" if found.low is None or found.high is None else f"{found.low:.3f}–{found.high:.3f}"


def score_change(name: str, found: Estimate) -> str:
    return signed(100 * found.value) if name in SHARES else signed(found.value, 3)


def score_change_interval(name: str, found: Estimate) -> str:
    if found.low is None or found.high is None:
        return "–"
    return points(found) if name in SHARES else f"{signed(found.low, 3)} to {signed(found.high, 3)}"


def points(found: Difference | Estimate) -> str:
    if found.low is None or found.high is None:
        return "–"
    return f"{signed(100 * found.low)} to {signed(100 * found.high)}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, which is no hyphen."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def setting_name(name: str) -> str:
    """A dotted name as a person says it."""
    return {"recipe.name": "recipe"}.get(name, name.removeprefix("recipe.").replace("_", " ").replace(".", ": "))


def setting_cells(setting: Setting) -> list[str]:
    """Its name, and its value in each run."""
    return [setting_name(setting.name), *("–" if value is None else str(value) for value in setting.values)]


def _row(run: RunFacts, change: Change | None) -> tuple[str, ...]:
    told = change.comparison if change else None
    return (
        f"{run.letter}: `{run.run}`",
        percent(run.scores["accuracy"].value),
        signed(100 * told.difference.value) if told else "",
        points(told.difference) if told else "",
        f"{told.mcnemar_p:.2g}" if told else "",
        f"{told.fixed:,}" if told else "",
        f"{told.broken:,}" if told else "",
        score("log_loss", run.scores["log_loss"]),
        score("expected_calibration_error", run.scores["expected_calibration_error"]),
    )
