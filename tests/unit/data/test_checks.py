"""The data checks artifact: counts in JSON, the table of duplicates, and texts for the log and the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_tables import payload
from tiny import save_dataset, tiny_dataset

from tasks.core.data import near_duplicates
from tasks.core.data.checks import DataChecks, build_data_checks, describe_checks, load_checks, log_checks
from tasks.core.data.dataset import Dataset
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.store import open_store
from tasks.core.store.history import find_run

INPUTS = {"dataset": "ab" * 32}


def run_checks(folder: Path, dataset: Dataset) -> DataChecks:
    folder.mkdir(exist_ok=True)
    save_dataset(dataset, folder)
    build_data_checks(folder, folder, INPUTS)
    return load_checks(folder)


def with_copies(dataset: Dataset) -> Dataset:
    """Insert two exact copies of training image 2 and two near-duplicates of training image 5."""
    train, test = dataset.train_images.copy(), dataset.test_images.copy()
    train[10], test[2] = train[2], train[2]
    train[8], test[4] = train[5][..., ::-1] // 2, train[5] // 3
    return replace(dataset, train_images=train, test_images=test)


def rows_of(table: pd.DataFrame) -> list[tuple[object, ...]]:
    columns = ["first_split", "first_index", "first_label", "second_split", "second_index", "second_label"]
    rows = table[[*columns, "labels_differ", "exact", "mirrored"]].astype({"first_label": str, "second_label": str})
    return list(rows.itertuples(index=False, name=None))


def test_each_pair_is_a_row_with_both_indices_and_labels(tmp_path: Path) -> None:
    run_checks(tmp_path, with_copies(tiny_dataset()))
    table = read_table(tmp_path / "duplicates.parquet")
    assert rows_of(table) == [
        ("train", 2, "cow", "train", 10, "bee", True, True, False),
        ("train", 2, "cow", "test", 2, "cow", False, True, False),
        ("train", 5, "cow", "train", 8, "cow", False, False, True),
        ("train", 5, "cow", "test", 4, "bee", True, False, False),
        ("train", 8, "cow", "test", 4, "bee", True, False, True),
    ]
    assert (table.loc[table["exact"], ["correlation", "structure"]] == 1).all(axis=None)
    assert table["correlation"].between(near_duplicates.MIN_CORRELATION, 1).all()
    assert table["structure"].between(near_duplicates.MIN_STRUCTURE, 1).all()


def test_pairs_are_counted_by_the_splits_of_their_images(tmp_path: Path) -> None:
    checks = run_checks(tmp_path, with_copies(tiny_dataset()))
    exact, near = checks.exact_duplicates, checks.near_duplicates
    assert (exact.within_train, exact.within_test, exact.train_and_test, exact.labels_differ) == (1, 0, 1, 1)
    assert (near.within_train, near.within_test, near.train_and_test, near.labels_differ) == (1, 0, 2, 2)
    assert (exact.pairs, near.pairs, near.complete) == (2, 3, True)
    assert checks.test_images_in_training == 2


def test_a_copy_of_a_test_image_counts_as_in_training_if_the_original_does(tmp_path: Path) -> None:
    dataset = with_copies(tiny_dataset())
    dataset.test_images[7] = dataset.test_images[4]  # whose near-duplicate is training image 5
    dataset.test_images[8] = dataset.test_images[0]  # which is only in the test images
    checks = run_checks(tmp_path, dataset)
    assert checks.exact_duplicates.within_test == 2
    assert checks.test_images_in_training == 3


def test_many_copies_of_one_image_give_one_row_per_copy(tmp_path: Path) -> None:
    dataset = tiny_dataset(train=300, test=100)
    dataset.train_images[:] = dataset.test_images[:] = dataset.train_images[0].copy()
    checks = run_checks(tmp_path, dataset)
    assert checks.exact_duplicates.pairs == 399
    assert checks.near_duplicates.pairs == 0
    assert checks.test_images_in_training == 100


def test_images_classes_brightness_and_contrast_are_reported(tmp_path: Path) -> None:
    dataset = tiny_dataset(train=22, test=9)
    dataset.test_images[3], dataset.test_images[6] = 0, 255
    dataset.test_images[1, :, ::2], dataset.test_images[1, :, 1::2] = 0, 255
    checks = run_checks(tmp_path, dataset)
    assert (checks.train.images, checks.train.per_class) == (22, {"ant": 8, "bee": 7, "cow": 7})
    assert (checks.test.images, sum(checks.test.per_class.values())) == (9, 9)
    assert (checks.test.brightness.lowest, checks.test.brightness.highest) == (0, 255)
    assert (checks.test.contrast.lowest, checks.test.contrast.highest) == (0, 127.5)
    means = dataset.train_images.mean(axis=(1, 2, 3))
    assert checks.train.brightness.median == pytest.approx(np.median(means), abs=0.005)


def test_both_files_contain_dataset_and_inputs(tmp_path: Path) -> None:
    checks = run_checks(tmp_path, tiny_dataset(kind="generated"))
    facts = read_facts(tmp_path / "duplicates.parquet")
    assert (facts["artifact"], facts["inputs"], facts["generated_images"]) == ("data_checks", INPUTS, True)
    assert facts["dataset"] == checks.dataset.model_dump()
    assert checks.generated_images


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        run_checks(folder, with_copies(tiny_dataset()))
    for name in ("data_checks.json", "duplicates.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_one_log_line_summarizes_the_checks(tmp_path: Path, log: list[str]) -> None:
    log_checks(run_checks(tmp_path, with_copies(tiny_dataset())))
    assert log == [
        "normalize: 2 exact duplicates, 3 near-duplicate pairs, 2 of them across train and test; see data_checks.json"
    ]


def test_report_texts_contain_counts_and_shares(tmp_path: Path) -> None:
    texts = describe_checks(run_checks(tmp_path, with_copies(tiny_dataset())))
    assert texts["near-duplicates"] == "3 pairs: 1 within training, 0 within test, 2 across; 2 with different labels"
    assert texts["test images in training"] == "2 (22.2%), exact or near-duplicates"
    assert texts["training images"].startswith("8 per class; brightness ")


def test_report_texts_describe_unequal_classes_and_no_duplicates(tmp_path: Path) -> None:
    texts = describe_checks(run_checks(tmp_path, tiny_dataset(train=22)))
    assert (texts["exact duplicates"], texts["near-duplicates"]) == ("none", "none")
    assert texts["training images"].startswith("7 (bee) to 8 (ant) per class; ")


def test_an_incomplete_search_is_reported(tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 0)
    checks = run_checks(tmp_path, with_copies(tiny_dataset()))
    log_checks(checks)
    assert "at least 0 near-duplicate pairs" in log[0]
    assert "the search stopped early" in describe_checks(checks)["near-duplicates"]


def test_the_artifact_depends_only_on_the_dataset(two_runs: Path) -> None:
    store = open_store(two_runs)
    refs = find_run(store, "current").artifacts
    manifest = store.manifest("data_checks", refs["data_checks"].version)
    assert manifest is not None
    assert manifest.inputs == (refs["dataset"],)
    assert manifest.key.settings == {}
    assert set(manifest.key.environment) == {"numpy", "pyarrow"}


def test_the_report_of_a_run_contains_the_data_checks(two_runs: Path) -> None:
    store = open_store(two_runs)
    checks = load_checks(payload(store, "data_checks"))
    page = (two_runs / "report.html").read_text(encoding="utf-8")
    assert checks.train.images == 400
    assert "Data checks" in page
    for text in describe_checks(checks).values():
        assert text in page
