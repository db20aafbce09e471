"""The report of a run: a self-contained page, and its numbers as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import JsonValue

from tasks.core.data.checks import DataChecks, describe_checks, load_checks
from tasks.core.data.dataset import Dataset, load_dataset
from tasks.core.evaluation.intervals import Estimate, wilson_interval
from tasks.core.evaluation.metrics import read_scores
from tasks.core.evaluation.tables import confusion_matrix
from tasks.core.frozen_model import FrozenModel
from tasks.core.reports import html
from tasks.core.reports.charts import accuracy_chart, learning_chart, loss_chart, reliability_chart
from tasks.core.reports.gallery import make_gallery
from tasks.core.reports.provenance import Facts
from tasks.core.reports.sprites import training_grid
from tasks.core.runtime.parquet import read_table

PAGE = ("report.html.j2", "report.js")


@dataclass(frozen=True)
class Results:
    """The dataset of a run, and the tables and scores that its stages built."""

    dataset: Dataset
    checks: DataChecks
    training: pd.DataFrame
    predictions: pd.DataFrame
    per_class: pd.DataFrame
    calibration: pd.DataFrame
    scores: Mapping[str, Estimate]


class Metrics(FrozenModel):
    """The content of `metrics.json`."""

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    correct: int
    images: int
    final_loss: float
    dataset: dict[str, str]
    generated_images: bool
    recipe: dict[str, JsonValue]
    seed: int
    promoted: bool
    verdict: str
    per_class: dict[str, float | None]
    best_class: str
    worst_class: str
    scores: dict[str, Estimate]


def build_report(folder: Path, facts: Facts, payloads: Mapping[str, Path]) -> None:
    """Write `report.html` and `metrics.json` to `folder`, from the folder of each artifact's files, by its name."""
    weights, predictions, per_class = (payloads[name] for name in ("weights", "predictions", "per_class"))
    results = Results(
        dataset=load_dataset(payloads["dataset"]),
        checks=load_checks(payloads["data_checks"]),
        training=read_table(weights / "training.parquet"),
        predictions=read_table(predictions / "predictions.parquet"),
        per_class=read_table(per_class / "per_class.parquet"),
        calibration=read_table(per_class / "calibration.parquet"),
        scores=read_scores(per_class).scores,
    )
    write_report(folder, facts, results)


def write_report(folder: Path, facts: Facts, results: Results) -> None:
    """Write `report.html` and `metrics.json`; the same arguments give the same bytes."""
    metrics = compute_metrics(facts, results)
    dataset, training = results.dataset, results.training
    page = html.render(
        *PAGE,
        facts=facts,
        metrics=metrics,
        dataset=dataset,
        checks=describe_checks(results.checks),
        unverified=dataset.identity.kind == "archive" and not facts.pinned,
        training_grid=training_grid(dataset, facts.seed),
        loss_chart=loss_chart(training),
        learning_chart=learning_chart(training),
        held_out=bool(training["validation_accuracy"].notna().any()),
        accuracy_chart=accuracy_chart(results.per_class),
        reliability_chart=reliability_chart(results.calibration),
        per_class=_without_nan(results.per_class).to_dict("records"),
        confusion=confusion_matrix(results.predictions).tolist(),
        gallery=make_gallery(dataset, results.predictions),
    )
    numbers = json.dumps(metrics.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")
    (folder / "metrics.json").write_text(numbers + "\n", encoding="utf-8", newline="\n")


def compute_metrics(facts: Facts, results: Results) -> Metrics:
    dataset, training, per_class = results.dataset, results.training, results.per_class
    correct, images = int(per_class["correct"].sum()), int(per_class["support"].sum())
    low, high = wilson_interval(correct, images)
    tested = per_class.query("support > 0").set_index("class")["accuracy"]
    return Metrics(
        accuracy=correct / images,
        accuracy_low=low,
        accuracy_high=high,
        correct=correct,
        images=images,
        final_loss=float(training["running_loss"].iloc[-1]),
        dataset=dataset.identity.model_dump(),
        generated_images=dataset.identity.is_generated,
        **facts.model_dump(include={"recipe", "seed", "promoted", "verdict"}),
        per_class=_without_nan(per_class).set_index("class")["accuracy"].to_dict(),
        best_class=str(tested.idxmax()),
        worst_class=str(tested.idxmin()),
        scores=dict(results.scores),
    )


def summary_markdown(content: Mapping[str, Any]) -> str:
    """Summarize the content of `metrics.json` for Prefect's UI."""
    metrics = Metrics.model_validate(content)
    interval = html.interval(metrics.accuracy_low, metrics.accuracy_high)
    lines = [
        f"**{metrics.accuracy:.1%} accuracy** (95% interval {interval}) on {metrics.images:,} test images "
        f"with the {metrics.recipe['name']} recipe; dataset: {metrics.dataset['name']}.",
        f"**{'Promoted' if metrics.promoted else 'Not promoted'}**: {metrics.verdict}",
        f"Log loss {metrics.scores['log_loss'].value:.3f}, expected calibration error "
        f"{metrics.scores['expected_calibration_error'].value:.1%}.",
        f"Best class: {metrics.best_class}. Worst class: {metrics.worst_class}.",
    ]
    if metrics.generated_images:
        lines.insert(0, "**GENERATED IMAGES, NOT CIFAR-10**")
    return "\n\n".join(escape(line, quote=False) for line in lines)


def _without_nan(table: pd.DataFrame) -> pd.DataFrame:
    """A table with None for its missing values: JSON has no NaN, which a class without test images has."""
    return table.astype(object).where(table.notna(), None)
