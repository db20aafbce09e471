"""Prints the result of each command as text."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.cli.printing import format_time, plural, print_facts, print_table
from tasks.core.data.identity import NOT_CIFAR10
from tasks.core.evaluation.intervals import Estimate, wilson_interval
from tasks.core.pipeline import STAGES
from tasks.core.recipes import Recipe
from tasks.core.store import Store
from tasks.core.store.current import read_current
from tasks.core.store.gc import Plan
from tasks.core.store.history import HistoryRow, describe_recipe
from tasks.core.store.lineage import Lineage
from tasks.core.store.runs import RunRecord, Score
from tasks.core.store.verify import Finding

if TYPE_CHECKING:
    from tasks.core.evaluation.paired import Comparison, PairedOutcome
    from tasks.core.inference.export import ExportCheck
    from tasks.core.reports.compare.summary import Summary

CHANGE_COLUMNS = ("change", "95% interval", "p", "fixed", "broken")


def print_recipes(recipes: Sequence[Recipe]) -> None:
    """One column for each recipe, one line for each setting."""
    names = list(Recipe.model_fields)
    print_table([(name.replace("_", " "), *(str(getattr(recipe, name)) for recipe in recipes)) for name in names])


def print_history(rows: Sequence[HistoryRow]) -> None:
    """One line for each run."""
    lines = [("run", "accuracy", "95% interval", "standing", "recipe", "dataset", "when (UTC)", "who")]
    for row in rows:
        accuracy, interval = "", ""
        if row.accuracy is not None:
            accuracy, interval = _percent(Estimate(row.accuracy, row.accuracy_low, row.accuracy_high))
        status = row.standing or ("" if row.status == "completed" else row.status)
        standing = f"{status}, collected" if row.collected else status
        started = row.started[:16].replace("T", " ")
        lines.append((row.run, accuracy, interval, standing, row.recipe, row.dataset or "", started, row.who))
    print_table(lines)


def print_run(record: RunRecord) -> None:
    facts = {
        "run": record.run,
        "status": f"{record.status}: {record.error}" if record.error else record.status,
        "started": format_time(record.started),
        "finished": format_time(record.finished) if record.finished else None,
        "who": record.who,
        "recipe": describe_recipe(record.settings),
        "settings": ", ".join(f"{name} {value}" for name, value in record.settings.items() if value is not None),
        "images": record.dataset.name if record.dataset else None,
        "accuracy": _score(record.score) if record.score else None,
        "verdict": record.verdict,
        "git": f"{record.git['commit']}{', with changes' if record.git['changed'] else ''}" if record.git else None,
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "collected": f"{format_time(record.collected)}; its artifacts may be gone" if record.collected else None,
    }
    print_facts(facts | {name: str(record.artifacts[name]) for name in STAGES if name in record.artifacts})


def print_version(lineage: Lineage) -> None:
    manifest = lineage.manifest
    made = manifest.made
    print_facts(
        {
            "version": str(manifest.ref),
            "stage": STAGES[manifest.name].label if manifest.name in STAGES else None,
            "sha256": manifest.sha256,
            "built": f"{format_time(made.at)}, in {made.seconds:.1f} s, on {made.host}",
            "device": made.device,
            "by run": made.run,
            "attempt": str(manifest.key.attempt),
            "settings": json.dumps(manifest.key.settings),
            "environment": json.dumps(manifest.key.environment),
            "files": ", ".join(f"{name} ({facts.bytes:,} bytes)" for name, facts in manifest.files.items()),
            "in runs": ", ".join(lineage.runs) or "none",
        }
    )
    print("built from" if lineage.made_from else "built from no artifact")
    for ancestor in lineage.made_from:
        built = f"built {format_time(ancestor.at)}" if ancestor.at else "missing"
        print(f"{'  ' * ancestor.depth}{ancestor.ref}, {built}")
    print("used for" if lineage.used_for else "used for no artifact")
    for ref in lineage.used_for:
        print(f"  {ref}")


def print_comparison(comparison: "Comparison", first_run: str, second_run: str) -> None:
    """Two runs, over all images and class by class."""
    lines: list[Sequence[str]] = [("", "first", "second", *CHANGE_COLUMNS, "images")]
    for name, outcome in (("all", comparison), *((each.class_name, each) for each in comparison.per_class)):
        accuracies = (f"{100 * accuracy:5.2f}%" for accuracy in (outcome.first_accuracy, outcome.second_accuracy))
        lines.append((name, *accuracies, *_change_cells(outcome), f"{outcome.images:6,}"))
    print_table(lines)
    print(f"first: run {first_run}")
    print(f"second: run {second_run}")
    print(f"fixed: {plural(comparison.fixed, 'image')} that only the second run gets right")
    print(f"broken: {plural(comparison.broken, 'image')} that only the first run gets right")
    print(f"both runs wrong, with different predictions: {plural(comparison.changed_mistakes, 'image')}")
    print("change and interval: points of accuracy; p: McNemar's test")


def print_summary(summary: "Summary") -> None:
    """One line for each run, compared with the first one; then the settings that differ."""
    from tasks.core.reports.compare import formatting

    lines: list[Sequence[str]] = [("", "run", "accuracy", "95% interval", *CHANGE_COLUMNS, "log loss", "ECE")]
    for run, change in zip(summary.runs, (None, *summary.changes), strict=True):
        scores = [formatting.score(name, run.scores[name]) for name in ("log_loss", "expected_calibration_error")]
        change_cells = _change_cells(change.comparison) if change else ("",) * len(CHANGE_COLUMNS)
        lines.append((run.letter, run.run, *_percent(run.scores["accuracy"]), *change_cells, *scores))
    print_table(lines)
    if summary.differences.settings:
        letters = [run.letter for run in summary.runs]
        print_table([("differences", *letters), *map(formatting.setting_cells, summary.differences.settings)])
    print(formatting.verdicts(summary))
    print("change and interval: points of accuracy against the first run; p: McNemar's test; ECE: calibration error")
    if summary.generated_images:
        print(formatting.GENERATED_IMAGES)


def print_current(store: Store) -> None:
    current = read_current(store)
    assert current is not None
    action = {"promote": "promoted", "rollback": "rolled back to"}[current.action]
    print(f"current run: {current.run} ({action} on {format_time(current.at)} by {current.who}: {current.why})")


def print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        known, advice = "known: " if finding.known else "", f"; {finding.advice}" if finding.advice else ""
        print(f"{known}{finding.wrong}{advice}")
    known_findings = sum(finding.known for finding in findings)
    if problems := len(findings) - known_findings:
        print(f"{plural(problems, 'problem')} found")
    else:
        print(f"no {'other ' if known_findings else ''}problems found")


def print_garbage(plan: Plan, *, dry_run: bool) -> None:
    for each in plan.versions:
        print(f"{each.name}/{each.version}  {each.bytes:,} bytes")
    print(
        f"{'would be removed' if dry_run else 'removed'}: {plural(len(plan.versions), 'version')}, "
        f"{plural(plan.bytes, 'byte')}, of {plural(len(plan.runs), 'run')}; "
        f"the artifacts of {plural(len(plan.kept), 'run')} are kept"
    )


def print_export(check: "ExportCheck") -> None:
    exported = check.exported
    print_facts(
        {
            "file": f"{check.file}; its check is {check.file}.check.json",
            "run": exported.run,
            "weights": str(exported.weights),
            "images": NOT_CIFAR10 if exported.generated_images else exported.dataset.name,
            "check": f"on {plural(check.images, 'test image')}, the largest difference in probability from "
            f"{check.reference} is {check.largest_difference:.1g} (tolerance {check.tolerance:g})",
            "versions": ", ".join(f"{name} {version}" for name, version in check.versions.items()),
        }
    )


def _change_cells(outcome: "PairedOutcome") -> tuple[str, ...]:
    """The cells of CHANGE_COLUMNS."""
    change = outcome.difference
    return (
        f"{100 * change.value:+6.2f}",
        f"{100 * change.low:+6.2f} to {100 * change.high:+6.2f}",
        f"{outcome.mcnemar_p:.2g}",
        f"{outcome.fixed:5,}",
        f"{outcome.broken:6,}",
    )


def _score(score: Score) -> str:
    low, high = wilson_interval(score.correct, score.images)
    accuracy = f"{100 * score.accuracy:.2f}% ({score.correct:,} of {score.images:,} correct)"
    return f"{accuracy}, 95% interval {100 * low:.2f} to {100 * high:.2f}"


def _percent(estimate: Estimate) -> tuple[str, str]:
    assert estimate.low is not None
    assert estimate.high is not None
    return f"{100 * estimate.value:6.2f}%", f"{100 * estimate.low:5.2f} to {100 * estimate.high:5.2f}"
