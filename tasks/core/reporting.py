"""The report of a run: one page that needs nothing else, and its numbers for machines."""

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

from tasks.core.charts import accuracy_chart, loss_chart
from tasks.core.data_checks import DataChecks, checks_in_words
from tasks.core.dataset import Dataset
from tasks.core.pictures import confident_mistakes, predicted_images, training_grid
from tasks.core.statistics import wilson_interval
from tasks.core.tables import confusion_matrix

TEMPLATE = Path(__file__).with_name("report.html.j2")
FIRST_IMAGES = 4
MISTAKES = 12


class StageFact(BaseModel):
    """One stage of the run: what it made or reused, how long that took and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    artifact: str
    seconds: float
    made_at: str


class Facts(BaseModel):
    """All that the report shows and that is not in the tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: dict[str, JsonValue]
    seed: int
    pinned: bool
    device: str
    versions: dict[str, str]
    stages: tuple[StageFact, ...]
    promoted: bool
    verdict: str


class Metrics(BaseModel):
    """What `metrics.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    correct: int
    images: int
    final_loss: float | None
    dataset: dict[str, str]
    generated_images: bool
    recipe: dict[str, JsonValue]
    seed: int
    promoted: bool
    verdict: str
    per_class: dict[str, float | None]
    best_class: str
    worst_class: str


class HeatRow(NamedTuple):
    """A row of the confusion matrix; each cell is a count and its share of the row."""

    label: str
    cells: list[tuple[int, float]]


def write_report(
    folder: Path,
    facts: Facts,
    dataset: Dataset,
    checks: DataChecks,
    training: pd.DataFrame,
    predictions: pd.DataFrame,
    per_class: pd.DataFrame,
) -> None:
    """Write `report.html` and `metrics.json`: byte for byte the same for the same arguments."""
    metrics = summarize(facts, dataset, training, per_class)
    page = _template().render(
        facts=facts,
        metrics=metrics,
        dataset=dataset,
        checks=checks_in_words(checks),
        unverified=dataset.identity.kind == "archive" and not facts.pinned,
        training_grid=training_grid(dataset, facts.seed),
        loss_chart=loss_chart(training) if len(training) else None,
        first=predicted_images(dataset, predictions.head(FIRST_IMAGES)),
        accuracy_chart=accuracy_chart(per_class),
        per_class=_rows(per_class),
        confusion=list(heat_rows(confusion_matrix(predictions), dataset.classes)),
        mistakes=predicted_images(dataset, confident_mistakes(predictions, MISTAKES)),
    )
    numbers = json.dumps(metrics.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "report.html").write_text(page, encoding="utf-8", newline="\n")
    (folder / "metrics.json").write_text(numbers + "\n", encoding="utf-8", newline="\n")


def summarize(facts: Facts, dataset: Dataset, training: pd.DataFrame, per_class: pd.DataFrame) -> Metrics:
    correct, images = int(per_class["correct"].sum()), int(per_class["support"].sum())
    low, high = wilson_interval(correct, images)
    accuracies = per_class.set_index("class")["accuracy"]
    tested = accuracies[per_class["support"].to_numpy() > 0].astype(float)
    return Metrics(
        accuracy=correct / images,
        accuracy_low=low,
        accuracy_high=high,
        correct=correct,
        images=images,
        final_loss=_number(training["running_loss"].iloc[-1]) if len(training) else None,
        dataset=dataset.identity.model_dump(),
        generated_images=dataset.identity.generated,
        recipe=facts.recipe,
        seed=facts.seed,
        promoted=facts.promoted,
        verdict=facts.verdict,
        per_class={str(name): _number(accuracy) for name, accuracy in accuracies.items()},
        best_class=str(tested.idxmax()),
        worst_class=str(tested.idxmin()),
    )


def summary_markdown(metrics: Mapping[str, Any]) -> str:
    """What `metrics.json` says, in a few lines for Prefect's UI."""
    found = Metrics.model_validate(metrics)
    interval = _interval(found.accuracy_low, found.accuracy_high)
    lines = [
        f"**{found.accuracy:.1%} accuracy** (95% interval {interval}) on {found.images:,} test images "
        f"with the {found.recipe['name']} recipe; dataset: {found.dataset['name']}.",
        f"**{'Promoted' if found.promoted else 'Not promoted'}**: {found.verdict}",
        f"Best class: {found.best_class}. Worst class: {found.worst_class}.",
    ]
    if found.generated_images:
        lines.insert(0, "**GENERATED IMAGES, NOT CIFAR-10**")
    return "\n\n".join(escape(line, quote=False) for line in lines)


def heat_rows(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Iterator[HeatRow]:
    for name, row in zip(classes, counts.tolist(), strict=True):
        images = max(sum(row), 1)
        yield HeatRow(name, [(count, count / images) for count in row])


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "interval": _interval, "duration": _duration, "moment": _moment}
    return environment.get_template(TEMPLATE.name)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table for the template, which tells a missing value by None."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _number(value: Any) -> float | None:
    """JSON knows neither NaN nor infinity: a loss that diverged and a class without images have no number."""
    return float(value) if pd.notna(value) and math.isfinite(value) else None


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low * 100:.1f}–{high * 100:.1f}%"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _moment(iso_time: str) -> str:
    moment = datetime.fromisoformat(iso_time)
    return f"{moment:%Y-%m-%d %H:%M:%S} {moment.tzname() or ''}".rstrip()
