"""The texts of a comparison: the same on the page, in Prefect's UI and in the log."""

from collections.abc import Iterator, Sequence
from html import escape

from tasks.core.evaluation.intervals import Difference, Estimate
from tasks.core.evaluation.paired import ClassComparison, PairedOutcome
from tasks.core.reports.compare.provenance_diff import Setting
from tasks.core.reports.compare.summary import Change, RunFacts, Summary, Verdict
from tasks.core.reports.html import interval, percent

PERCENT_SCORES = ("accuracy", "expected_calibration_error")  # in percent; their changes are in points
VERDICTS: dict[Verdict, str] = {
    "better": "{} is more accurate than {}",
    "worse": "{} is less accurate than {}",
    "undecided": "{} and {} are not distinguishable in accuracy",
    "same answers": "{} and {} give the same answer for every image",
}
GENERATED_IMAGES = "GENERATED IMAGES, NOT CIFAR-10: this comparison does not apply to CIFAR-10"


def verdicts(summary: Summary) -> str:
    """One clause for each run: B is more accurate than A, C and A are not distinguishable in accuracy."""
    first = summary.runs[0].letter
    return ", ".join(VERDICTS[change.verdict].format(change.letter, first) for change in summary.changes)


def evidence(outcome: PairedOutcome) -> str:
    """The numbers behind a verdict."""
    return (
        f"{signed(100 * outcome.difference.value)} points of accuracy "
        f"(95% interval {points_interval(outcome.difference)}), McNemar p {outcome.mcnemar_p:.2g}: "
        f"{outcome.fixed:,} images fixed and {outcome.broken:,} broken of {outcome.images:,}"
    )


def log_lines(summary: Summary) -> Iterator[str]:
    for run in summary.runs:
        accuracy = run.scores["accuracy"]
        limits = interval(accuracy.low, accuracy.high)
        yield f"compare: {run.letter} is run {run.run}, {percent(accuracy.value)} accuracy (95% interval {limits})"
    for change in summary.changes:
        yield f"compare: {change.letter} against {summary.runs[0].letter}: {evidence(change.comparison)}"
    yield f"compare: {verdicts(summary)}"
    if summary.generated_images:
        yield f"compare: {GENERATED_IMAGES}"


def markdown(summary: Summary) -> str:
    """The comparison as a table for Prefect's UI."""
    changes: list[Change | None] = [None, *summary.changes]
    rows = [
        ("run", "accuracy", "change", "95% interval", "McNemar p", "fixed", "broken", "log loss", "calibration error"),
        ("---", *["---:"] * 8),
        *(_markdown_row(run, change) for run, change in zip(summary.runs, changes, strict=True)),
    ]
    names = ", ".join(setting_name(setting.name) for setting in summary.differences.settings)
    code = f"; {len(summary.differences.code):,} symbols of the code" if summary.differences.code else ""
    parts = [
        *([f"**{GENERATED_IMAGES}**"] if summary.generated_images else []),
        f"**{verdicts(summary)}**, on {summary.images:,} test images of {summary.dataset.name}.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
        f"Differences: {names or 'no setting'}{code}. Changes are against the first run, in points of accuracy.",
    ]
    return "\n\n".join(escape(part, quote=False) for part in parts)


def _markdown_row(run: RunFacts, change: Change | None) -> Sequence[str]:
    scores = [score(name, run.scores[name]) for name in ("accuracy", "log_loss", "expected_calibration_error")]
    change_cells = [""] * 5
    if change:
        outcome = change.comparison
        change_cells = [
            signed(100 * outcome.difference.value),
            points_interval(outcome.difference),
            f"{outcome.mcnemar_p:.2g}",
            f"{outcome.fixed:,}",
            f"{outcome.broken:,}",
        ]
    return [f"{run.letter}: `{run.run}`", scores[0], *change_cells, *scores[1:]]


def changed_classes(classes: tuple[ClassComparison, ...]) -> list[ClassComparison]:
    """The classes whose interval excludes 0, the largest change first."""
    changed = [each for each in classes if each.difference.low > 0 or each.difference.high < 0]
    return sorted(changed, key=lambda each: -abs(each.difference.value))


def score(name: str, estimate: Estimate) -> str:
    return percent(estimate.value) if name in PERCENT_SCORES else f"{estimate.value:.3f}"


def score_interval(name: str, estimate: Estimate) -> str:
    if name in PERCENT_SCORES:
        return interval(estimate.low, estimate.high)
    return "–" if estimate.low is None or estimate.high is None else f"{estimate.low:.3f}–{estimate.high:.3f}"


def score_change(name: str, estimate: Estimate) -> str:
    return signed(100 * estimate.value) if name in PERCENT_SCORES else signed(estimate.value, 3)


def score_change_interval(name: str, estimate: Estimate) -> str:
    if name in PERCENT_SCORES or estimate.low is None or estimate.high is None:
        return points_interval(estimate)
    return f"{signed(estimate.low, 3)} to {signed(estimate.high, 3)}"


def points_interval(estimate: Difference | Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return "–"
    return f"{signed(100 * estimate.low)} to {signed(100 * estimate.high)}"


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; the minus sign is not a hyphen, and zero has none."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def setting_name(name: str) -> str:
    """A dotted setting name as text: `recipe.learning_rate` becomes `learning rate`."""
    return {"recipe.name": "recipe"}.get(name, name.removeprefix("recipe.").replace("_", " ").replace(".", ": "))


def setting_cells(setting: Setting) -> list[str]:
    """The name of a setting, then its value in each run."""
    return [setting_name(setting.name), *("–" if value is None else str(value) for value in setting.values)]
