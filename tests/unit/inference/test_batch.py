"""Predictions for images of one's own, by the network of a real tiny run."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from own_images import damaged, noise, saved
from PIL import Image
from rich.console import Console
from tiny_artifacts import quiet
from tiny_runs import tiny_run

from tasks.core.config import Settings
from tasks.core.data.dataset import load_dataset
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.inference.batch import BATCH_SIZE, predict_files
from tasks.core.inference.classifier import Classifier, load_classifier
from tasks.core.inference.gallery import MOST_THUMBNAILS, NOT_CIFAR10, Overview
from tasks.core.inference.image_files import find_images
from tasks.core.models.factory import model_code_digests
from tasks.core.reading import payload, predictions
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.runtime.progress import progress_counter
from tasks.core.store import open_store
from tasks.core.store.history import find_run

CPU = torch.device("cpu")
FILES = {"predictions.parquet", "unreadable.parquet", "gallery.html"}


@pytest.fixture(scope="module")
def classifier(two_runs: Path) -> Classifier:
    return load_classifier(open_store(two_runs), "current", CPU)


def silent(_done: int, _in_all: int) -> None:
    """Nobody watches."""


def predicted(classifier: Classifier, images: Path, output: Path) -> tuple[pd.DataFrame, Overview]:
    overview = predict_files(output, find_images([str(images)], quiet), classifier, silent)
    return read_table(output / "predictions.parquet"), overview


def test_a_test_image_gets_the_stored_prediction(two_runs: Path, classifier: Classifier, tmp_path: Path) -> None:
    store = open_store(two_runs)
    for index, image in enumerate(load_dataset(payload(store, "dataset")).test_images):
        saved(Image.fromarray(image.transpose(1, 2, 0)), tmp_path / "images" / f"{index:03}.png")
    mine, _ = predicted(classifier, tmp_path / "images", tmp_path / "out")
    stored = predictions(store)

    assert list(mine["predicted"].astype(str)) == list(stored["predicted"].astype(str))
    numbers = [name for name in stored.columns if name.startswith("prob_")] + ["confidence"]
    assert np.abs(mine[numbers] - stored[numbers]).max().max() < 1e-5


def test_the_columns_are_those_of_stored_predictions_with_the_path(
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


def test_a_run_that_asks_the_mirrored_image_too_is_followed(archive: Path, tmp_path: Path) -> None:
    settings = Settings(source=str(archive), epochs=1, batch_size=100, test_augmentation="flip", promote="never")
    run = tiny_run(tmp_path / "store", settings)
    store = open_store(tmp_path / "store")
    image = load_dataset(payload(store, "dataset", run.run)).test_images[0]
    saved(Image.fromarray(image.transpose(1, 2, 0)), tmp_path / "one.png")
    mine, _ = predicted(load_classifier(store, run.run, CPU), tmp_path / "one.png", tmp_path / "out")
    assert abs(mine["confidence"][0] - predictions(store, run.run)["confidence"][0]) < 1e-5


def test_every_file_says_which_run_weights_and_images_the_answers_are_of(
    two_runs: Path, classifier: Classifier, tmp_path: Path
) -> None:
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


def test_what_cannot_be_read_is_listed_with_its_reason_and_does_not_stop_the_rest(
    classifier: Classifier, tmp_path: Path
) -> None:
    broken = damaged(tmp_path / "images")
    saved(noise(1), tmp_path / "images" / "whole.png")
    mine, overview = predicted(classifier, tmp_path / "images", tmp_path / "out")
    unreadable = read_table(tmp_path / "out" / "unreadable.parquet")

    assert list(mine["path"]) == [str(tmp_path / "images" / "whole.png")]
    assert set(unreadable["path"]) == {str(path) for path in broken.values()}
    assert unreadable["reason"].str.len().min() > 5
    lines = list(overview.lines())
    assert f"{len(broken)} files cannot be read:" in lines
    assert any("link.png: No such file or directory" in line for line in lines)
    assert NOT_CIFAR10 in lines
    assert "No such file or directory" in (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")


def test_if_nothing_can_be_read_that_is_an_error_after_the_reasons_are_written(
    classifier: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="expected one or more that can be read, got 1 that cannot"):
        predicted(classifier, tmp_path / "empty.png", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"unreadable.parquet"}
    assert len(read_table(tmp_path / "out" / "unreadable.parquet")) == 1


def test_where_nothing_can_be_read_the_earlier_answers_stay(classifier: Classifier, tmp_path: Path) -> None:
    predicted(classifier, saved(noise(1), tmp_path / "one.png"), tmp_path / "out")
    earlier = {name: (tmp_path / "out" / name).read_bytes() for name in ("predictions.parquet", "gallery.html")}
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match="expected one or more that can be read"):
        predicted(classifier, tmp_path / "empty.png", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in earlier} == earlier
    assert len(read_table(tmp_path / "out" / "unreadable.parquet")) == 1


def test_more_images_than_a_batch_are_predicted_in_order_and_sampled_for_the_gallery(
    classifier: Classifier, tmp_path: Path
) -> None:
    count = 2 * BATCH_SIZE + 7
    for seed in range(count):
        saved(noise(seed % 50), tmp_path / "images" / f"{seed:04}.png")
    (tmp_path / "images" / "0300.png").write_bytes(b"damaged")
    shown: list[tuple[int, int]] = []
    paths = find_images([str(tmp_path / "images")], quiet)
    overview = predict_files(tmp_path / "out", paths, classifier, lambda done, in_all: shown.append((done, in_all)))
    mine = read_table(tmp_path / "out" / "predictions.parquet")

    assert list(mine["path"]) == [path for path in paths if not path.endswith("0300.png")]
    assert list(mine["index"]) == list(range(count - 1))
    assert np.allclose(mine["confidence"][:50], mine["confidence"][50:100], atol=1e-6)
    assert shown == [(done, count) for done in range(1, count + 1)]
    assert overview.counts == mine["predicted"].astype(str).value_counts().to_dict()
    assert MOST_THUMBNAILS * 2 // 3 <= len(overview.cards) <= MOST_THUMBNAILS
    assert overview.cards[-1].path >= str(tmp_path / "images" / f"{count - 5:04}.png")
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert page.count("<img") == len(overview.cards)
    assert f"These are {len(overview.cards)} of the {count - 1} images" in page


def test_names_that_are_no_markup_and_no_text_are_shown_and_stored(classifier: Classifier, tmp_path: Path) -> None:
    for name in (b"<script>alert(1)<script>.png", b'"quoted" \xff.png', b"a\nb.png"):
        (tmp_path / "images").mkdir(exist_ok=True)
        path = bytes(tmp_path / "images") + b"/" + name
        with open(path, "wb") as file:  # noqa: PTH123 - the name is bytes
            noise(1).save(file, "PNG")
    mine, overview = predicted(classifier, tmp_path / "images", tmp_path / "out")

    assert {Path(path).name for path in mine["path"]} == {
        "<script>alert(1)<script>.png",
        r'"quoted" \xff.png',
        "a\nb.png",
    }
    page = (tmp_path / "out" / "gallery.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert all("\n" not in line for line in overview.lines())
    assert "<script" not in overview.markdown()


def test_an_interrupted_prediction_leaves_the_earlier_files_as_they_were(
    classifier: Classifier, tmp_path: Path
) -> None:
    predicted(classifier, saved(noise(1), tmp_path / "one.png"), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def interrupt(_done: int, _in_all: int) -> None:
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


def test_an_output_that_is_no_folder_is_refused_in_one_line(classifier: Classifier, tmp_path: Path) -> None:
    path = saved(noise(1), tmp_path / "one.png")
    for output in (path, path / "below"):
        with pytest.raises(InputError, match="output: expected a folder, got a file"):
            predicted(classifier, path, output)


def test_nothing_is_predicted_into_a_store_or_in_a_folders_place(
    classifier: Classifier, artifacts: Path, tmp_path: Path
) -> None:
    path, stored = saved(noise(1), tmp_path / "one.png"), (artifacts / "predictions.parquet").read_bytes()
    with pytest.raises(InputError, match="output: expected a folder of your own, got the store"):
        predicted(classifier, path, artifacts)
    assert (artifacts / "predictions.parquet").read_bytes() == stored

    (tmp_path / "out" / "predictions.parquet").mkdir(parents=True)
    with pytest.raises(InputError, match="output: expected a file, got the folder"):
        predicted(classifier, path, tmp_path / "out")


# The classifier


def test_any_run_can_be_asked_and_another_one_answers_otherwise(two_runs: Path, classifier: Classifier) -> None:
    previous = load_classifier(open_store(two_runs), "previous", CPU)
    images = np.stack([np.asarray(noise(seed)).transpose(2, 0, 1) for seed in range(4)])
    assert previous.run != classifier.run
    assert not np.allclose(previous.probabilities(images), classifier.probabilities(images))


def test_a_network_of_ones_own_is_only_imported_when_it_is_named(archive: Path, tmp_path: Path) -> None:
    own = "own_networks:dropout_network"
    settings = Settings(source=str(archive), epochs=1, batch_size=100, model=own, promote="never")
    run = tiny_run(tmp_path / "store", settings)
    store = open_store(tmp_path / "store")
    with pytest.raises(InputError, match=f"got those of {own}; give that as --model"):
        load_classifier(store, run.run, CPU)
    assert load_classifier(store, run.run, CPU, own).run == run.run
    with pytest.raises(InputError, match="expected those of model own_networks:other_images"):
        load_classifier(store, run.run, CPU, "own_networks:other_images")


def test_code_that_was_changed_since_a_network_was_trained_is_told(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code, own = tmp_path / "edited_since.py", "edited_since:network"
    code.write_text("from own_networks import OneLayer as network\nWIDTH = 1\n")
    run = tiny_run(tmp_path / "store", Settings(source=str(archive), epochs=1, batch_size=100, model=own))
    store = open_store(tmp_path / "store")
    assert not load_classifier(store, run.run, CPU, own).changed_code
    code.write_text("from own_networks import OneLayer as network\nWIDTH = 2\n")
    model_code_digests.cache_clear()  # as in another process
    assert load_classifier(store, run.run, CPU, own).changed_code == ["edited_since.py"]


def test_the_dataset_itself_need_not_be_here_any_more(artifacts: Path) -> None:
    store = open_store(artifacts)
    dataset = find_run(store, "current").artifacts["dataset"]
    (artifacts / str(dataset) / "train_images.npy").unlink()
    assert load_classifier(store, "current", CPU).normalization.mean == (0.5, 0.5, 0.5)
    (artifacts / str(dataset) / "manifest.json").unlink()
    with pytest.raises(EnvironmentFailure, match="expected its manifest, got none"):
        load_classifier(store, "current", CPU)


# How far it is


def test_a_terminal_shows_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    with progress_counter(console, pytest.fail) as show:
        show(2_500, 10_000)
    assert isinstance(console.file, io.StringIO)
    assert "25%" in console.file.getvalue()
    assert "2500/10000 images" in console.file.getvalue()


@pytest.mark.parametrize(("in_all", "lines"), [(10_000, 9), (1_005, 9), (999, 0), (1, 0)])
def test_elsewhere_a_few_lines_are_said_of_many_images(in_all: int, lines: int) -> None:
    said: list[str] = []
    with progress_counter(Console(file=io.StringIO()), said.append) as show:
        for done in range(1, in_all + 1):
            show(done, in_all)
    assert len(said) == lines
    assert not said or said[0].endswith(f"of {in_all:,} images")
