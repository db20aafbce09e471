"""What the `cifar` command prints: tables for people, JSON for machines."""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn

from tasks.core.data.identity import NOT_CIFAR10
from tasks.core.evaluation.intervals import Estimate, wilson_interval
from tasks.core.recipes import Recipe
from tasks.core.store.current import read_current
from tasks.core.store.gc import Plan
from tasks.core.store.history import HistoryRow, describe_recipe
from tasks.core.store.lineage import Lineage
from tasks.core.store.runs import RunRecord, Score
from tasks.core.store.store import Store
from tasks.core.store.verify import Finding

if TYPE_CHECKING:
    from flows.cli.doctor import Check
    from tasks.core.evaluation.paired import Comparison, PairedOutcome
    from tasks.core.inference.export import Check as ExportCheck
    from tasks.core.reports.compare.summary import Summary

Found = TypeVar("Found", bound=BaseModel | Sequence[BaseModel])
CHANGE = ("change", "95% interval", "p", "fixed", "broken")
COLORS = {"ok": "green", "note": "yellow", "bad": "red"}


def answer(found: Found, in_words: Callable[[Found], None], *, json: bool) -> None:
    """Print what was found, for machines or for people."""
    if json:
        print(to_json(found, indent=1, inf_nan_mode="null").decode())
    else:
        in_words(found)


def note(line: str) -> None:
    """Say what happens beside the result."""
    print(line, file=sys.stderr)


def recipes(found: Sequence[Recipe]) -> None:
    """A column a recipe, a line a setting."""
    names = list(Recipe.model_fields)
    _table([(name.replace("_", " "), *(str(getattr(recipe, name)) for recipe in found)) for name in names])


def history(rows: Sequence[HistoryRow]) -> None:
    """One line a run, and what is looked for most comes first."""
    lines = [("run", "accuracy", "95% interval", "standing", "recipe", "dataset", "when (UTC)", "who")]
    for row in rows:
        came_to = row.standing or ("" if row.status == "completed" else row.status)
        collected = ", collected" if row.collected else ""
        lines.append(
            (
                row.run,
                *_accuracy(row),
                f"{came_to}{collected}",
                row.recipe,
                row.dataset or "",
                _minute(row.started),
                row.who,
            )
        )
    _table(lines)


def run(record: RunRecord) -> None:
    facts = {
        "run": record.run,
        "status": f"{record.status}: {record.error}" if record.error else record.status,
        "started": _moment(record.started),
        "finished": _moment(record.finished) if record.finished else None,
        "who": record.who,
        "recipe": describe_recipe(record.settings),
        "settings": ", ".join(f"{name} {value}" for name, value in record.settings.items() if value is not None),
        "images": record.dataset.name if record.dataset else None,
        "accuracy": _score(record.score) if record.score else None,
        "verdict": record.verdict,
        "git": f"{record.git['commit']}{', with changes' if record.git['changed'] else ''}" if record.git else None,
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "collected": f"{_moment(record.collected)}; its artifacts are given up" if record.collected else None,
    }
    _facts(facts | {name: str(ref) for name, ref in record.artifacts.items()})


def version(lineage: Lineage) -> None:
    manifest = lineage.manifest
    made = manifest.made
    _facts(
        {
            "version": str(manifest.ref),
            "sha256": manifest.sha256,
            "made": f"{_moment(made.at)}, in {made.seconds:.1f} s, on {made.host}",
            "device": made.device,
            "by run": made.run,
            "attempt": str(manifest.key.attempt),
            "settings": json.dumps(manifest.key.settings),
            "environment": json.dumps(manifest.key.environment),
            "files": ", ".join(f"{name} ({facts.bytes:,} bytes)" for name, facts in manifest.files.items()),
            "in runs": ", ".join(lineage.runs) or "none",
        }
    )
    print("made from" if lineage.made_from else "made from nothing in the store")
    for ancestor in lineage.made_from:
        said = f"made {_moment(ancestor.at)}" if ancestor.at else "which is lost"
        print(f"{'  ' * ancestor.depth}{ancestor.ref}, {said}")
    print("used for" if lineage.used_for else "used for nothing in the store")
    for ref in lineage.used_for:
        print(f"  {ref}")


def comparison(found: "Comparison", first: str, second: str) -> None:
    lines: list[Sequence[str]] = [("", "first", "second", *CHANGE, "images")]
    for name, outcome in (("all", found), *((each.class_name, each) for each in found.per_class)):
        accuracies = (f"{100 * accuracy:5.2f}%" for accuracy in (outcome.first_accuracy, outcome.second_accuracy))
        lines.append((name, *accuracies, *_change(outcome), f"{outcome.images:6,}"))
    _table(lines)
    print(f"first: run {first}")
    print(f"second: run {second}")
    print(f"fixed: {_many(found.fixed, 'image')} that only the second gets right")
    print(f"broken: {_many(found.broken, 'image')} that only the first gets right")
    print(f"{_many(found.changed_mistakes, 'image')} went from one mistake to another")
    print("change and its interval are in points; p is McNemar's")


def comparisons(found: "Summary") -> None:
    """One line a run, held against the first; then what differs in how they were made."""
    from tasks.core.reports.compare import formatting

    lines: list[Sequence[str]] = [("", "run", "accuracy", "95% interval", *CHANGE, "log loss", "ECE")]
    for run, change in zip(found.runs, (None, *found.changes), strict=True):
        scores = [formatting.score(name, run.scores[name]) for name in ("log_loss", "expected_calibration_error")]
        against = _change(change.comparison) if change else ("",) * len(CHANGE)
        lines.append((run.letter, run.run, *_percent(run.scores["accuracy"]), *against, *scores))
    _table(lines)
    if found.differences.settings:
        letters = [run.letter for run in found.runs]
        _table([("differing", *letters), *map(formatting.setting_cells, found.differences.settings)])
    print(formatting.verdicts(found))
    print("change and its interval are in points, against the first; p is McNemar's; ECE: expected calibration error")
    if found.generated_images:
        print(formatting.NOT_CIFAR10)


def current(store: Store) -> None:
    now = read_current(store)
    assert now is not None
    words = {"promote": "promoted", "rollback": "rolled back to"}
    print(f"current run: {now.run} ({words[now.action]} on {_moment(now.at)} by {now.who}: {now.why})")


def findings_of(pieces: Iterable[tuple[str, list[Finding]]]) -> list[Finding]:
    """All findings, showing on a terminal which piece is being checked."""
    columns = (SpinnerColumn(), TextColumn("{task.completed} checked: {task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task, found = progress.add_task(""), list[Finding]()
        for name, findings in pieces:
            progress.update(task, description=name, advance=1)
            found += findings
        return found


def findings(found: Sequence[Finding]) -> None:
    for finding in found:
        known = "known: " if finding.known else ""
        print(f"{known}{finding.wrong}; {finding.advice}")
    known_ones = sum(finding.known for finding in found)
    if wrong := len(found) - known_ones:
        print(f"{_many(wrong, 'thing')} {'is' if wrong == 1 else 'are'} wrong")
    else:
        print(f"everything {'else ' if known_ones else ''}is as it was stored")


def garbage(plan: Plan, *, dry_run: bool) -> None:
    for each in plan.versions:
        print(f"{each.name}/{each.version}  {each.bytes:,} bytes")
    print(
        f"{'would be removed' if dry_run else 'removed'}: {_many(len(plan.versions), 'version')}, "
        f"{_many(plan.bytes, 'byte')}, of {_many(len(plan.runs), 'run')}; "
        f"the artifacts of {_many(len(plan.kept), 'run')} are kept"
    )


def export(check: "ExportCheck") -> None:
    exported = check.exported
    _facts(
        {
            "file": f"{check.file}, beside it {check.file}.check.json",
            "run": exported.run,
            "weights": str(exported.weights),
            "images": NOT_CIFAR10 if exported.generated_images else exported.dataset.name,
            "check": f"on {_many(check.images, 'test image')} no probability is further than "
            f"{check.largest_difference:.1g} from {check.reference} (tolerance {check.tolerance:g})",
            "versions": ", ".join(f"{name} {version}" for name, version in check.versions.items()),
        }
    )


def checks(found: "Sequence[Check]") -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in found:
        color = COLORS[check.state]
        advice = f" → {check.advice}" if check.advice else ""
        console.print(f"[{color}]{check.state:4}[/{color}]  {check.name}: {escape(check.found)}{escape(advice)}")


def _change(outcome: "PairedOutcome") -> tuple[str, ...]:
    """The columns CHANGE."""
    change = outcome.difference
    return (
        f"{100 * change.value:+6.2f}",
        f"{100 * change.low:+6.2f} to {100 * change.high:+6.2f}",
        f"{outcome.mcnemar_p:.2g}",
        f"{outcome.fixed:5,}",
        f"{outcome.broken:6,}",
    )


def _table(lines: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; rich's take a second for 1,000 lines. A terminal cuts what it cannot show."""
    widths, columns = [max(map(len, column)) for column in zip(*lines, strict=True)], _columns()
    for cells in lines:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        print(line if len(line) <= columns else f"{line[: columns - 1]}…")


def _facts(facts: Mapping[str, str | None]) -> None:
    """Names and values; a terminal has the lines of a long value below each other."""
    indent = max(map(len, facts)) + 2
    wrapper = textwrap.TextWrapper(
        _columns(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    for name, value in facts.items():
        if value is not None:
            print(wrapper.fill(f"{name:{indent}}{value}"))


def _columns() -> int:
    """How wide a line may be: as the terminal is, or any width where nobody looks at one."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def _score(score: Score) -> str:
    low, high = wilson_interval(score.correct, score.images)
    right = f"{100 * score.accuracy:.2f}% ({score.correct:,} of {score.images:,} right)"
    return f"{right}, 95% interval {100 * low:.2f} to {100 * high:.2f}"


def _accuracy(row: HistoryRow) -> tuple[str, str]:
    if row.accuracy is None:
        return "", ""
    return _percent(Estimate(row.accuracy, row.accuracy_low, row.accuracy_high))


def _percent(found: Estimate) -> tuple[str, str]:
    assert found.low is not None
    assert found.high is not None
    return f"{100 * found.value:6.2f}%", f"{100 * found.low:5.2f} to {100 * found.high:5.2f}"


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _moment(moment: str) -> str:
    return f"{moment[:19].replace('T', ' ')} UTC"
