"""Predictions for your own images, by the network of a real tiny run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from own_images import damaged, noise, saved
from PIL import Image
from run_tables import payload, predictions

from tasks.core.data.dataset import load_dataset
from tasks.core.errors import InputError
from tasks.core.inference.batch import BATCH_SIZE, predict_files
from tasks.core.inference.classifier import Classifier, load_classifier
from tasks.core.inference.image_files import find_images
from tasks.core.inference.summary import GENERATED_TRAINING_IMAGES, MAX_THUMBNAILS, PredictionSummary
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.store import open_store
from tasks.core.store.history import find_run

CPU = torch.device("cpu")
FILES = {"predictions.parquet", "unreadable.parquet", "gallery.html"}


@pytest.fixture(scope="module")
def classifier(two_runs: Path) -> Classifier:
    return load_classifier(open_store(two_runs), "current", CPU)


def ignore_progress(_done: int, _total: int) -> None:
    """A progress callback that shows nothing."""


def predicted(classifier: Classifier, images: Path, output: Path) -> tuple[pd.DataFrame, PredictionSummary]:
    summary = predict_files(output, find_images([str(images)]), classifier, ignore_progress)
    return read_table(output / "predictions.parquet"), summary


def test_a_test_image_gets_the_stored_prediction(two_runs: Path, classifier: Classifier, tmp_path: Path) -> None:
    store = open_store(two_runs)
    for index, image in enumerate(load_dataset(payload(store, "dataset")).test_images):
        saved(Image.fromarray(image.transpose(1, 2, 0)), tmp_path / "images" / f"{index:03}.png")
    mine, _ = predicted(classifier, tmp_path / "images", tmp_path / "out")
    stored = predictions(store)

    assert list(mine["predicted"].astype(str)) == list(stored["predicted"].astype(str))
    numbers = [name for name in stored.columns if name.startswith("prob_")] + ["confidence"]
    assert np.abs(mine[numbers] - stored[numbers]).max().max() < 1e-5


def test_columns_are_those_of_stored_predictions_and_the_path(
    two_runs: Path, classifier: Classifier, tmp_path: Path
) -> None:
    for seed in range(3):
        saved(noise(seed, (40, 50)), tmp_path / "images" / f"{seed}.webp")
    mine, _ = predicted(classifier, tmp_path / "images", tmp_path / "out")
    stored = pq.read_schema(two_runs / "predictions.parquet")
    written = pq.read_schema(tmp_path / "out" / "predictions.parquet")

    assert written.remove(1) == stored
    assert written.names[1] == "path"
    assert list(mine["path"]) == [str(tmp_path / "images" / f"{seed}.webp") for seed in range(3)]
    assert list(mine["index"]) == [0, 1, 2]
    assert mine["label"].isna().all()
    assert mine["correct"].isna().all()
    assert list(mine["predicted"].cat.categories) == list(classifier.lineage.classes)


def test_every_file_names_run_weights_and_dataset(two_runs: Path, classifier: Classifier, tmp_path: Path) -> None:
    predicted(classifier, saved(noise(1), tmp_path / "one.png"), tmp_path)
    record = find_run(open_store(two_runs), "current")
    assert record.dataset
    for name in ("predictions", "unreadable"):
        facts = read_facts(tmp_path / f"{name}.parquet")
        assert facts["artifact"] == name
        assert facts["run"] == record.run
        assert facts["weights"] == str(record.artifacts["weights"])
        assert facts["inputs"] == {"weights": record.artifacts["weights"].sha256}
        assert facts["dataset"] == record.dataset.model_dump()
        assert facts["generated_images"] is True
    page = (tmp_path / "gallery.html").read_text(encoding="utf-8")
    assert record.run in page
    assert "TRAINED ON GENERATED IMAGES" in page


def test_unreadable_files_are_listed_and_do_not_stop_the_others(classifier: Classifier, tmp_path: Path) -> None:
    broken = damaged(tmp_path / "images")
    saved(noise(1), tmp_path / "images" / "whole.png")
    mine, summary = predicted(classifier, tmp_path / "images", tmp_path / "out")
    unreadable = read_table(tmp_path / "out" / "unreadable.parquet")

    assert list(mine["path"]) == [str(tmp_path / "images" / "whole.png")]
    assert set(unreadable["path"]) == {str(path) for path in broken.values()}
    assert unreadable["reason"].str.len().min() > 5
    lines = list(summary.log_lines())
    assert f"predict: {len(broken)} files cannot be read:" in lines
    assert any("link.png: No such file or directory" in line for line in lines)
    assert f"predict: {GENERATED_TRAINING_IMAGES}" in lines
    assert "No such file or directory" in (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")


def test_without_a_readable_image_only_the_reasons_are_written(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="images: expected a readable image, got 1 unreadable; see "):
        predicted(classifier, tmp_path / "empty.png", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"unreadable.parquet"}
    assert len(read_table(tmp_path / "out" / "unreadable.parquet")) == 1


def test_without_a_readable_image_earlier_predictions_stay(classifier: Classifier, tmp_path: Path) -> None:
    predicted(classifier, saved(noise(1), tmp_path / "one.png"), tmp_path / "out")
    earlier = {name: (tmp_path / "out" / name).read_bytes() for name in ("predictions.parquet", "gallery.html")}
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="expected a readable image"):
        predicted(classifier, tmp_path / "empty.png", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in earlier} == earlier
    assert len(read_table(tmp_path / "out" / "unreadable.parquet")) == 1


def test_several_batches_are_in_order_and_sampled_for_the_gallery(classifier: Classifier, tmp_path: Path) -> None:
    count = 2 * BATCH_SIZE + 7
    for seed in range(count):
        saved(noise(seed % 50), tmp_path / "images" / f"{seed:04}.png")
    (tmp_path / "images" / "0300.png").write_bytes(b"damaged")
    shown: list[tuple[int, int]] = []
    paths = find_images([str(tmp_path / "images")])
    summary = predict_files(tmp_path / "out", paths, classifier, lambda done, total: shown.append((done, total)))
    mine = read_table(tmp_path / "out" / "predictions.parquet")

    assert list(mine["path"]) == [path for path in paths if not path.endswith("0300.png")]
    assert list(mine["index"]) == list(range(count - 1))
    assert np.allclose(mine["confidence"][:50], mine["confidence"][50:100], atol=1e-6)
    assert shown == [(done, count) for done in range(1, count + 1)]
    assert summary.counts == mine["predicted"].astype(str).value_counts().to_dict()
    assert MAX_THUMBNAILS * 2 // 3 <= len(summary.thumbnails) <= MAX_THUMBNAILS
    assert summary.thumbnails[-1].path >= str(tmp_path / "images" / f"{count - 5:04}.png")
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert page.count("<img") == len(summary.thumbnails)
    assert f"These are {len(summary.thumbnails)} of the {count - 1} images" in page


def test_file_names_with_markup_or_invalid_bytes(classifier: Classifier, tmp_path: Path) -> None:
    for name in (b"<script>alert(1)<script>.png", b'"quoted" \xff.png', b"a\nb.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        path = bytes(tmp_path / "images") + b"/" + name
        with open(path, "wb") as file:  # noqa: PTH123 - the name is bytes
            noise(1).save(file, "PNG")
    mine, summary = predicted(classifier, tmp_path / "images", tmp_path / "out")

    assert {Path(path).name for path in mine["path"]} == {
        "<script>alert(1)<script>.png",
        r'"quoted" \xff.png',
        "a\nb.png",
    }
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all("\n" not in line for line in summary.log_lines())
    assert "<script" not in summary.markdown()


def test_an_interrupted_prediction_leaves_earlier_files_unchanged(classifier: Classifier, tmp_path: Path) -> None:
    predicted(classifier, saved(noise(1), tmp_path / "one.png"), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(tmp_path / "out", [str(saved(noise(2), tmp_path / "two.png"))], classifier, interrupt)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert set(before) == FILES


def test_the_same_images_give_the_same_bytes(classifier: Classifier, tmp_path: Path) -> None:
    saved(noise(1), tmp_path / "images" / "one.png")
    for output in ("first", "second"):
        predicted(classifier, tmp_path / "images", tmp_path / output)
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_an_output_that_is_a_file_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    path = saved(noise(1), tmp_path / "one.png")
    for output in (path, path / "below"):
        with pytest.raises(InputError, match="--output: expected a folder, got the file"):
            predicted(classifier, path, output)


def test_an_output_in_a_store_or_over_a_folder_is_refused(
    classifier: Classifier, artifacts: Path, tmp_path: Path
) -> None:
    path, stored = saved(noise(1), tmp_path / "one.png"), (artifacts / "predictions.parquet").read_bytes()
    with pytest.raises(InputError, match="--output: expected a folder outside the store, got the store"):
        predicted(classifier, path, artifacts)
    assert (artifacts / "predictions.parquet").read_bytes() == stored

    (tmp_path / "out" / "predictions.parquet").mkdir(parents=True)
    with pytest.raises(InputError, match="--output: expected a file, got the folder"):
        predicted(classifier, path, tmp_path / "out")
