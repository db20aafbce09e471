"""The data checks artifact: what it counts, in JSON, as a table and in words."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import tiny_dataset

from tasks.core.data import near_duplicates
from tasks.core.data.checks import DataChecks, build_data_checks, describe_checks, load_checks, log_checks
from tasks.core.data.dataset import Dataset, save_dataset
from tasks.core.pipeline import data_checks_stage
from tasks.core.reading import payload
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.store import open_store
from tasks.core.store.history import find_run

INPUTS = {"dataset": "ab" * 32}


def checked(folder: Path, dataset: Dataset) -> DataChecks:
    folder.mkdir(exist_ok=True)
    save_dataset(dataset, folder)
    build_data_checks(folder, folder, INPUTS)
    return load_checks(folder)


def with_copies(dataset: Dataset) -> Dataset:
    """Of 24 and 9 images of ant, bee and cow in turn: two exact copies of training image 2, two near ones of 5."""
    train, test = dataset.train_images.copy(), dataset.test_images.copy()
    train[10], test[2] = train[2], train[2]
    train[8], test[4] = train[5][..., ::-1] // 2, train[5] // 3
    return replace(dataset, train_images=train, test_images=test)


def as_text(table: pd.DataFrame) -> list[tuple[object, ...]]:
    columns = ["first_split", "first_index", "first_label", "second_split", "second_index", "second_label"]
    rows = table[[*columns, "labels_differ", "exact", "mirrored"]].astype({"first_label": str, "second_label": str})
    return list(rows.itertuples(index=False, name=None))


def test_each_pair_is_a_row_with_both_places_and_labels(tmp_path: Path) -> None:
    checked(tmp_path, with_copies(tiny_dataset()))
    table = read_table(tmp_path / "duplicates.parquet")
    assert as_text(table) == [
        ("train", 2, "cow", "train", 10, "bee", True, True, False),
        ("train", 2, "cow", "test", 2, "cow", False, True, False),
        ("train", 5, "cow", "train", 8, "cow", False, False, True),
        ("train", 5, "cow", "test", 4, "bee", True, False, False),
        ("train", 8, "cow", "test", 4, "bee", True, False, True),
    ]
    assert (table.loc[table["exact"], ["correlation", "structure"]] == 1).all(axis=None)
    assert table["correlation"].between(near_duplicates.LEAST_CORRELATION, 1).all()
    assert table["structure"].between(near_duplicates.LEAST_STRUCTURE, 1).all()


def test_pairs_are_counted_by_where_their_images_are(tmp_path: Path) -> None:
    found = checked(tmp_path, with_copies(tiny_dataset()))
    exact, near = found.exact_duplicates, found.near_duplicates
    assert (exact.within_train, exact.within_test, exact.train_and_test, exact.labels_differ) == (1, 0, 1, 1)
    assert (near.within_train, near.within_test, near.train_and_test, near.labels_differ) == (1, 0, 2, 2)
    assert (exact.pairs, near.pairs, near.complete) == (2, 3, True)
    assert found.test_images_in_training == 2


def test_a_test_image_that_copies_another_one_is_in_training_if_that_is(tmp_path: Path) -> None:
    dataset = with_copies(tiny_dataset())
    dataset.test_images[7] = dataset.test_images[4]  # whose near-duplicate is training image 5
    dataset.test_images[8] = dataset.test_images[0]  # which is only in the test images
    found = checked(tmp_path, dataset)
    assert found.exact_duplicates.within_test == 2
    assert found.test_images_in_training == 3


def test_many_copies_of_one_image_are_as_many_rows_not_all_pairs_of_them(tmp_path: Path) -> None:
    dataset = tiny_dataset(train=300, test=100)
    dataset.train_images[:] = dataset.test_images[:] = dataset.train_images[0].copy()
    found = checked(tmp_path, dataset)
    assert found.exact_duplicates.pairs == 399
    assert found.near_duplicates.pairs == 0
    assert found.test_images_in_training == 100


def test_images_and_classes_are_counted_and_brightness_and_contrast_measured(tmp_path: Path) -> None:
    dataset = tiny_dataset(train=22, test=9)
    dataset.test_images[3], dataset.test_images[6] = 0, 255
    dataset.test_images[1, :, ::2], dataset.test_images[1, :, 1::2] = 0, 255
    found = checked(tmp_path, dataset)
    assert (found.train.images, found.train.per_class) == (22, {"ant": 8, "bee": 7, "cow": 7})
    assert (found.test.images, sum(found.test.per_class.values())) == (9, 9)
    assert (found.test.brightness.lowest, found.test.brightness.highest) == (0, 255)
    assert (found.test.contrast.lowest, found.test.contrast.highest) == (0, 127.5)
    means = dataset.train_images.mean(axis=(1, 2, 3))
    assert found.train.brightness.median == pytest.approx(np.median(means), abs=0.005)


def test_both_files_say_what_they_are_of(tmp_path: Path) -> None:
    found = checked(tmp_path, tiny_dataset(kind="generated"))
    facts = read_facts(tmp_path / "duplicates.parquet")
    assert (facts["artifact"], facts["inputs"], facts["generated_images"]) == ("data_checks", INPUTS, True)
    assert facts["dataset"] == found.dataset.model_dump()
    assert found.generated_images


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        checked(folder, with_copies(tiny_dataset()))
    for name in ("data_checks.json", "duplicates.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_one_line_of_the_log_sums_them_up(tmp_path: Path) -> None:
    log: list[str] = []
    log_checks(checked(tmp_path, with_copies(tiny_dataset())), log.append)
    assert log == [
        "data checks: 2 exact duplicates, 3 near-duplicate pairs, 2 of them across train and test; see data_checks.json"
    ]


def test_words_for_the_report_tell_what_was_found_and_of_what(tmp_path: Path) -> None:
    words = describe_checks(checked(tmp_path, with_copies(tiny_dataset())))
    assert words["near-duplicates"] == "3 pairs: 1 within training, 0 within test, 2 across; 2 with two labels"
    assert words["test images in training"] == "2 (22.2%), exactly or nearly"
    assert words["training images"].startswith("8 of each class; brightness ")


def test_an_archive_of_unlike_images_in_unequal_classes_is_told_as_such(tmp_path: Path) -> None:
    words = describe_checks(checked(tmp_path, tiny_dataset(train=22)))
    assert (words["exact duplicates"], words["near-duplicates"]) == ("none", "none")
    assert words["training images"].startswith("7 (bee) to 8 (ant) of a class; ")


def test_a_search_that_was_given_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MOST_CANDIDATES", 0)
    found = checked(tmp_path, with_copies(tiny_dataset()))
    log: list[str] = []
    log_checks(found, log.append)
    assert "at least 0 near-duplicate pairs" in log[0]
    assert "the search was given up" in describe_checks(found)["near-duplicates"]


def test_the_artifact_depends_on_the_dataset_alone(two_runs: Path) -> None:
    store = open_store(two_runs)
    refs = find_run(store, "current").artifacts
    manifest = store.newest(data_checks_stage(store, refs["dataset"]).key)
    assert manifest is not None
    assert manifest.ref == refs["data_checks"]
    assert manifest.inputs == (refs["dataset"],)
    assert set(manifest.key.environment) == {"numpy", "pyarrow"}


def test_the_report_of_a_run_has_a_section_on_them(two_runs: Path) -> None:
    store = open_store(two_runs)
    found = load_checks(payload(store, "data_checks"))
    page = (two_runs / "report.html").read_text(encoding="utf-8")
    assert found.train.images == 400
    assert "Data checks" in page
    for words in describe_checks(found).values():
        assert words in page
