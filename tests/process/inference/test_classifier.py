"""The trained network of a run as a classifier, with real trainings."""

from pathlib import Path

import numpy as np
import pytest
import torch
from own_images import noise
from run_tables import payload, predictions
from tiny_runs import tiny_run

from tasks.core.config import Settings
from tasks.core.data.dataset import load_dataset
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.inference.classifier import load_classifier
from tasks.core.models.factory import model_code_digests
from tasks.core.store import open_store
from tasks.core.store.history import find_run

CPU = torch.device("cpu")


def test_the_test_augmentation_of_the_run_is_used(archive: Path, tmp_path: Path) -> None:
    settings = Settings(source=str(archive), epochs=1, batch_size=100, test_augmentation="flip", promote="never")
    run = tiny_run(tmp_path / "store", settings)
    store = open_store(tmp_path / "store")
    image = load_dataset(payload(store, "dataset", run.run)).test_images[0]
    confidence = load_classifier(store, run.run, CPU).probabilities(image[None]).max()
    assert abs(confidence - predictions(store, run.run)["confidence"][0]) < 1e-5


def test_another_run_predicts_something_else(two_runs: Path) -> None:
    current, previous = (load_classifier(open_store(two_runs), name, CPU) for name in ("current", "previous"))
    images = np.stack([np.asarray(noise(seed)).transpose(2, 0, 1) for seed in range(4)])
    assert previous.run != current.run
    assert not np.allclose(previous.probabilities(images), current.probabilities(images))


def test_a_custom_network_is_only_imported_if_it_is_named(archive: Path, tmp_path: Path) -> None:
    own = "custom_networks:dropout_network"
    settings = Settings(source=str(archive), epochs=1, batch_size=100, model=own, promote="never")
    run = tiny_run(tmp_path / "store", settings)
    store = open_store(tmp_path / "store")
    with pytest.raises(
        InputError, match=f"--model: expected {own}, the custom network of the run, got none; give --model {own} to"
    ):
        load_classifier(store, run.run, CPU)
    assert load_classifier(store, run.run, CPU, own).run == run.run
    with pytest.raises(InputError, match="expected those of model custom_networks:other_images"):
        load_classifier(store, run.run, CPU, "custom_networks:other_images")


def test_code_that_changed_since_the_training_is_listed(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code, own = tmp_path / "edited_since.py", "edited_since:network"
    code.write_text("from custom_networks import OneLayer as network\nWIDTH = 1\n")
    run = tiny_run(tmp_path / "store", Settings(source=str(archive), epochs=1, batch_size=100, model=own))
    store = open_store(tmp_path / "store")
    assert not load_classifier(store, run.run, CPU, own).changed_code
    code.write_text("from custom_networks import OneLayer as network\nWIDTH = 2\n")
    model_code_digests.cache_clear()  # as in another process
    assert load_classifier(store, run.run, CPU, own).changed_code == ["edited_since.py"]


def test_the_images_of_the_dataset_are_not_needed(artifacts: Path) -> None:
    store = open_store(artifacts)
    dataset = find_run(store, "current").artifacts["dataset"]
    (artifacts / str(dataset) / "train_images.npy").unlink()
    assert load_classifier(store, "current", CPU).normalization.mean == (0.5, 0.5, 0.5)
    (artifacts / str(dataset) / "manifest.json").unlink()
    with pytest.raises(EnvironmentFailure, match="its manifest is missing or damaged; run again"):
        load_classifier(store, "current", CPU)
