import json
import re
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.utils import make_grid

from tasks.core.config import Normalization
from tasks.core.data.checks import DataChecks, NearDuplicates, PairCounts, SplitChecks, Spread
from tasks.core.data.dataset import Dataset
from tasks.core.data.identity import Identity, Kind
from tasks.core.evaluation.intervals import wilson_interval
from tasks.core.evaluation.metrics import ScoreAccumulator
from tasks.core.evaluation.tables import calibration_table, confusion_matrix, per_class_table, predictions_table
from tasks.core.reports import gallery
from tasks.core.reports.charts import accuracy_chart, learning_chart, loss_chart, reliability_chart
from tasks.core.reports.provenance import Facts, StageFact
from tasks.core.reports.report import Results, summary_markdown, write_report
from tasks.core.reports.sprites import row_data_uri, sprite_sheet

SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
FACTS = Facts(
    recipe={"name": "tutorial", "epochs": 2, "batch_size": 4, "learning_rate": 0.001, "momentum": 0.9},
    seed=1,
    pinned=False,
    device="cpu",
    versions={"torch": "2.15.0"},
    stages=(
        StageFact(
            stage="train",
            artifact="weights/3fa9c0ffee12",
            inputs=("dataset",),
            seconds=93.2,
            built_at="2026-11-23T23:35:39+00:00",
        ),
    ),
    command="python flows/cifar_flow.py --recipe tutorial --seed 1 --device cpu",
    promoted=True,
    verdict="Nothing was promoted before.",
)
CLASSES = ("plane", "car", "bird")


class Page(HTMLParser):
    """The elements and the visible text of the page, as a browser parses them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.source = (folder / "report.html").read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = "".join(self.texts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def make_dataset(classes: tuple[str, ...] = CLASSES, test_images: int = 30, kind: Kind = "archive") -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40 + test_images, 3, 32, 32), dtype=np.uint8)
    labels = (np.arange(40 + test_images) % len(classes)).astype(np.uint8)
    identity = Identity(kind=kind, name="tiny", sha256=SHA256)
    return Dataset(identity, classes, Normalization(), images[:40], labels[:40], images[40:], labels[40:])


def make_predictions(dataset: Dataset, wrong_every: int | None = 4) -> pd.DataFrame:
    """Every n-th prediction is wrong; the confidence increases with the index."""
    labels, index = dataset.test_labels.astype(int), np.arange(len(dataset.test_labels))
    wrong = index % wrong_every == 0 if wrong_every else np.zeros(len(index), bool)
    confidence = 0.6 + index / 10_000
    probabilities = np.tile(((1 - confidence) / (len(dataset.classes) - 1))[:, None], len(dataset.classes))
    probabilities[index, (labels + wrong) % len(dataset.classes)] = confidence
    frame: pd.DataFrame = predictions_table(
        dataset.test_labels, probabilities.astype(np.float32), dataset.classes
    ).to_pandas()
    return frame


def make_checks(dataset: Dataset) -> DataChecks:
    spread, pairs = Spread(lowest=1, median=120, highest=250), PairCounts.model_fields
    images = {"brightness": spread, "contrast": spread, "per_class": dict.fromkeys(dataset.classes, 2)}
    return DataChecks(
        dataset=dataset.identity,
        generated_images=dataset.identity.is_generated,
        train=SplitChecks(images=len(dataset.train_labels), **images),
        test=SplitChecks(images=len(dataset.test_labels), **images),
        exact_duplicates=PairCounts(**dict.fromkeys(pairs, 0)),
        near_duplicates=NearDuplicates(**dict.fromkeys(pairs, 1234), complete=True),
        test_images_in_training=2,
    )


def make_per_class(predictions: pd.DataFrame) -> pd.DataFrame:
    frame: pd.DataFrame = per_class_table(
        confusion_matrix(predictions), list(predictions["label"].cat.categories)
    ).to_pandas()
    return frame


def make_training(losses: tuple[float, ...] = (2.2, 1.9, 1.6, 1.4)) -> pd.DataFrame:
    steps = np.arange(1, len(losses) + 1) * 5
    return pd.DataFrame(
        {
            "step": steps,
            "epoch": (steps - 1) // 10 + 1,
            "running_loss": losses,
            "learning_rate": 0.001,
            "running_accuracy": np.linspace(0.1, 0.5, len(steps)),
            "validation_accuracy": [None] * (len(steps) - 1) + [0.45],
        }
    )


def results_of(dataset: Dataset, wrong_every: int | None = 4) -> Results:
    predictions = make_predictions(dataset, wrong_every)
    accumulator = ScoreAccumulator(len(dataset.classes))
    columns = [f"prob_{name}" for name in dataset.classes]
    accumulator.add(dataset.test_labels.astype(np.intp), predictions[columns].to_numpy(np.float32))
    return Results(
        dataset=dataset,
        checks=make_checks(dataset),
        training=make_training(),
        predictions=predictions,
        per_class=make_per_class(predictions),
        calibration=calibration_table(accumulator.bins).to_pandas(),
        scores=accumulator.scores(),
    )


def report(folder: Path, dataset: Dataset, wrong_every: int | None = 4, facts: Facts = FACTS) -> Page:
    folder.mkdir(exist_ok=True)
    write_report(folder, facts, results_of(dataset, wrong_every))
    return Page(folder)


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        report(folder, make_dataset())
    for name in ("report.html", "metrics.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_page_loads_no_other_files(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset())
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags())
    assert [attributes.get("type") for tag, attributes in page.elements if tag == "script"] == [
        "application/json",
        None,
    ]
    references = [
        value or ""
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name != "href" or "version" not in (attributes.get("class") or "")  # links load nothing
        if name in ("src", "href", "xlink:href", "srcset", "poster", "data")
    ]
    assert references
    assert all(reference.startswith(("data:", "#")) for reference in references)
    assert all(target.startswith(("data:", "#")) for target in re.findall(r"url\(([^)]*)\)", page.source))
    assert "@import" not in page.source


def test_page_shows_what_the_tutorial_shows(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset())
    assert "GroundTruth: car bird plane car" in page.text
    assert "Predicted: bird bird plane car" in page.text
    assert "Training images: " in page.source


def test_page_has_accuracy_interval_recipe_and_verdict(tmp_path: Path) -> None:
    text = " ".join(report(tmp_path, make_dataset()).text.split())
    low, high = wilson_interval(22, 30)
    assert (
        f"73.3% accuracy (95% interval {low * 100:.1f}–{high * 100:.1f}%) on 30 test images with the tutorial recipe"
        in text
    )
    assert "Promoted when it finished: Nothing was promoted before." in text


def test_generated_images_are_labelled(tmp_path: Path) -> None:
    generated = report(tmp_path / "generated", make_dataset(kind="generated"))
    archive = report(tmp_path / "archive", make_dataset(kind="archive"))
    assert "GENERATED IMAGES, NOT CIFAR-10" in generated.text
    assert "GENERATED IMAGES" not in archive.text
    assert json.loads((tmp_path / "generated" / "metrics.json").read_text())["generated_images"] is True


@pytest.mark.parametrize(
    ("kind", "pinned", "warned"), [("archive", False, True), ("archive", True, False), ("official", False, False)]
)
def test_own_archive_without_sha256_is_called_unverified(
    tmp_path: Path, kind: Kind, pinned: bool, warned: bool
) -> None:
    page = report(tmp_path, make_dataset(kind=kind), facts=FACTS.model_copy(update={"pinned": pinned}))
    assert ("Unverified archive" in page.text) is warned
    assert SHA256 in page.text


def test_hostile_class_names_stay_text(tmp_path: Path) -> None:
    hostile = ("<b>bold</b>", '"><script>', r"$\frac{", "漢字 & \x01\n")
    page = report(tmp_path, make_dataset(hostile))
    assert "b" not in page.tags()
    assert page.tags().count("script") == 2
    assert page.text.count("<b>bold</b>") > 3
    for svg in re.findall(r"<svg.*?</svg>", page.source, flags=re.DOTALL):
        ElementTree.fromstring(svg)
    assert "<b>bold</b>" in "".join(ElementTree.fromstring(accuracy_chart(make_per_class_of(hostile))).itertext())


def make_per_class_of(classes: tuple[str, ...]) -> pd.DataFrame:
    return make_per_class(make_predictions(make_dataset(classes)))


def test_report_of_two_classes_and_no_mistakes(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset(("cat", "dog"), test_images=3), wrong_every=None)
    assert "every test image was predicted correctly" in page.text
    assert "GroundTruth: cat dog cat" in page.text


def test_classes_without_test_images_have_no_numbers(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset(tuple(f"class {number}" for number in range(20)), test_images=3))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert sum(accuracy is None for accuracy in metrics["per_class"].values()) == 17
    assert "nan" not in page.text.lower()
    assert "None" not in page.text


def test_report_of_256_classes_is_below_3_mb(tmp_path: Path) -> None:
    report(tmp_path, make_dataset(tuple(f"class number {number}" for number in range(256)), test_images=2_500))
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_gallery_samples_every_cell_of_the_confusion_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gallery, "MAX_IMAGES", 12)
    dataset = make_dataset(test_images=300)
    predictions = make_predictions(dataset, wrong_every=50)
    shown = gallery.make_gallery(dataset, predictions)
    pairs = {(image["label"], image["predicted"]) for image in shown.images}

    assert pairs == {*zip(predictions["label"], predictions["predicted"], strict=True)}
    assert {image["index"] for image in shown.first} == {0, 1, 2, 3}
    featured = {image["index"] for image in shown.first + shown.mistakes + shown.unsure}
    assert featured <= {image["index"] for image in shown.images}
    assert len(shown.images) < 50


def test_image_rows_have_the_layout_of_torchvision() -> None:
    images = make_dataset().train_images[:8]
    pixels = np.asarray(Image.open(BytesIO(b64decode(row_data_uri(images).partition(",")[2]))))

    assert np.array_equal(pixels[..., :3], make_grid(torch.from_numpy(images)).permute(1, 2, 0))
    alpha = make_grid(torch.full((8, 1, 32, 32), 255, dtype=torch.uint8))[0]
    assert np.array_equal(pixels[..., 3], alpha)


def test_sprite_sheet_has_each_image_at_its_position() -> None:
    images = np.zeros((40, 3, 32, 32), np.uint8)
    images[37] = 255
    sheet = sprite_sheet(images)
    pixels = np.asarray(Image.open(BytesIO(b64decode(sheet.uri.partition(",")[2]))))

    assert (sheet.columns, sheet.rows, pixels.shape) == (32, 2, (64, 1024, 3))
    assert pixels[32 + 16, 5 * 32 + 16].min() > 250
    assert pixels[16].max() < 5


def test_confusion_matrix_counts_images_with_truth_in_rows(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset(), wrong_every=3)
    matrix = page.source[page.source.index('<table class="heat') :]
    counts = [int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", matrix[: matrix.index("</table>")])]
    assert counts == [10, 0, 0, 0, 0, 10, 0, 0, 10]


def test_most_confident_mistakes_come_first() -> None:
    mistakes = gallery.confident_mistakes(make_predictions(make_dataset()), 3)
    assert mistakes["index"].tolist() == [28, 24, 20]


def test_metrics_agree_with_the_tables(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset())
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    per_class = make_per_class(make_predictions(make_dataset()))
    assert (metrics["correct"], metrics["images"]) == (per_class["correct"].sum(), 30)
    assert metrics["accuracy"] == 22 / 30
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == wilson_interval(22, 30)
    assert metrics["per_class"] == dict(zip(per_class["class"], per_class["accuracy"], strict=True))
    assert metrics["per_class"][metrics["best_class"]] == per_class["accuracy"].max()
    assert metrics["per_class"][metrics["worst_class"]] == per_class["accuracy"].min()
    assert metrics["final_loss"] == 1.4
    assert metrics["dataset"] == {"kind": "archive", "name": "tiny", "sha256": SHA256}
    assert f"The best class is {metrics['best_class']}" in " ".join(page.text.split())


def test_markdown_summary_has_the_numbers_of_the_page(tmp_path: Path) -> None:
    report(tmp_path, make_dataset(("<b>", "dog"), kind="generated"))
    summary = summary_markdown(json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")))
    assert "**73.3% accuracy**" in summary
    assert "Log loss 0.618, expected calibration error 13.2%." in summary
    assert "GENERATED IMAGES, NOT CIFAR-10" in summary
    assert "<b>" not in summary


def test_charts_take_the_color_of_the_page_and_have_a_label() -> None:
    results = results_of(make_dataset())
    training = results.training
    for chart in (
        accuracy_chart(results.per_class),
        loss_chart(training),
        learning_chart(training),
        reliability_chart(results.calibration),
    ):
        assert "currentColor" in chart
        assert "#000000" not in chart
        assert "<style" not in chart
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_page_ids_are_unique(tmp_path: Path) -> None:
    page = report(tmp_path, make_dataset())
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_page_summarizes_the_data_checks(tmp_path: Path) -> None:
    text = " ".join(report(tmp_path, make_dataset()).text.split())
    assert "Near-duplicates show the same picture" in text
    assert "3,702 pairs: 1,234 within training, 1,234 within test, 1,234 across; 1,234 with different labels" in text


def test_unknown_fact_is_refused() -> None:
    with pytest.raises(ValidationError, match="verdcit"):
        Facts.model_validate({**FACTS.model_dump(), "verdcit": "typo"})
