"""Evaluation: predictions of stored weights for every test image, tables, scores and log lines."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.transforms.functional as transform
from log_lines import logged_lines
from tiny import CLASSES, save_dataset, tiny_dataset
from torch import Tensor
from torchvision import transforms

from tasks.core.config import Normalization
from tasks.core.data.archive import TUTORIAL_CLASSES
from tasks.core.data.dataset import Dataset, copy_images, normalize_images
from tasks.core.errors import InputError
from tasks.core.evaluation.evaluate import (
    BATCH_SIZE,
    build_per_class,
    build_predictions,
    log_accuracy,
    log_scores,
    predict_probabilities,
)
from tasks.core.evaluation.metrics import read_scores
from tasks.core.models.factory import init_network
from tasks.core.models.weights import Lineage, save_weights
from tasks.core.recipes import RECIPES, TestAugmentation
from tasks.core.runtime.parquet import read_facts, read_table

TUTORIAL = RECIPES["tutorial"]
CPU = torch.device("cpu")
INPUTS = {"dataset": "ab" * 32, "weights": "cd" * 32}
PREDICTIONS = {"predictions": "ef" * 32}


def evaluate(dataset: Dataset, folder: Path, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the predictions and the per-class table of an untrained network, through files as in a run."""
    folder.mkdir()
    lineage = Lineage(recipe=TUTORIAL, seed=seed, classes=dataset.classes, dataset=dataset.identity)
    save_weights(folder, init_network(TUTORIAL.model, len(dataset.classes), seed), lineage)
    save_dataset(dataset, folder)
    build_predictions(folder, folder, folder, TUTORIAL, CPU, INPUTS)
    build_per_class(folder, folder, PREDICTIONS)
    return read_table(folder / "predictions.parquet"), read_table(folder / "per_class.parquet")


def test_each_row_has_the_prediction_of_the_stored_weights(tmp_path: Path) -> None:
    dataset = tiny_dataset(test=BATCH_SIZE + 5)
    predictions, _ = evaluate(dataset, tmp_path / "seven", seed=7)
    network = init_network(TUTORIAL.model, len(CLASSES), seed=7).eval()
    to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    images = torch.stack([to_input(image.transpose(1, 2, 0)) for image in dataset.test_images])
    with torch.no_grad():
        expected = network(images).softmax(dim=1).numpy()

    assert predictions["index"].tolist() == list(range(BATCH_SIZE + 5))
    assert predictions["label"].cat.codes.tolist() == dataset.test_labels.tolist()
    assert np.allclose(predictions[[f"prob_{name}" for name in CLASSES]], expected, atol=1e-6)
    most_probable = np.array(CLASSES)[expected.argmax(axis=1)]
    clear = np.diff(np.sort(expected), axis=1)[:, -1] > 1e-5  # otherwise rounding errors decide
    assert clear.mean() > 0.99
    assert (predictions["predicted"].astype(str).to_numpy() == most_probable)[clear].all()


def test_other_weights_give_other_predictions(tmp_path: Path) -> None:
    first, second = (evaluate(tiny_dataset(), tmp_path / str(seed), seed)[0] for seed in (1, 2))
    assert not np.allclose(first["confidence"], second["confidence"])


def test_probabilities_sum_to_one_and_the_highest_is_predicted(tmp_path: Path) -> None:
    predictions, _ = evaluate(tiny_dataset(), tmp_path / "weights")
    probabilities = predictions[[f"prob_{name}" for name in CLASSES]]
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (predictions["confidence"] == probabilities.max(axis=1)).all()
    greatest = [str(name) for name in probabilities.idxmax(axis=1)]
    assert [f"prob_{name}" for name in predictions["predicted"]] == greatest


@pytest.mark.parametrize("classes", [CLASSES, tuple(f"class {number}" for number in range(40))])
def test_both_tables_have_the_same_counts_per_class(tmp_path: Path, classes: tuple[str, ...]) -> None:
    predictions, per_class = evaluate(tiny_dataset(classes, test=120), tmp_path / "weights")
    assert list(per_class["class"]) == list(classes)
    for row in per_class.to_dict("records"):
        of_class = predictions[predictions["label"] == row["class"]]
        assert (row["support"], row["correct"]) == (len(of_class), of_class["correct"].sum())
    assert per_class["correct"].sum() == predictions["correct"].sum() > 0
    assert per_class["support"].sum() == 120


def test_evaluating_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        evaluate(tiny_dataset(), tmp_path / name)
    for name in ("predictions.parquet", "per_class.parquet", "calibration.parquet", "scores.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_each_table_has_facts_about_weights_recipe_and_images(tmp_path: Path) -> None:
    dataset = tiny_dataset(kind="generated")
    evaluate(dataset, tmp_path / "weights", seed=5)
    for name, inputs in (("predictions", INPUTS), ("per_class", PREDICTIONS)):
        expected = {
            "artifact": name,
            "inputs": inputs,
            "recipe": RECIPES["tutorial"].model_dump(),
            "seed": 5,
            "dataset": dataset.identity.model_dump(),
            "generated_images": True,
        }
        assert read_facts(tmp_path / "weights" / f"{name}.parquet") == expected
    assert read_facts(tmp_path / "weights" / "calibration.parquet") == expected
    assert read_scores(tmp_path / "weights").facts == expected


def test_classes_without_test_images_have_no_accuracy(tmp_path: Path) -> None:
    _, per_class = evaluate(tiny_dataset([f"class {number}" for number in range(8)], test=3), tmp_path / "weights")
    assert per_class["support"].sum() == 3
    assert per_class["accuracy"].isna().sum() == 5


# Many images


def test_images_of_a_mapped_file_are_copied(tmp_path: Path) -> None:
    images = tiny_dataset(test=50).test_images
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    for part in (slice(0, 7), slice(40, 60)):
        for source in (images, mapped, mapped[:]):
            copy = copy_images(source, part)
            assert np.array_equal(copy, images[part])
            assert copy.base is None


def test_many_images_keep_their_order_in_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.evaluation.evaluate.ROW_GROUP", 2 * BATCH_SIZE)
    few, times = tiny_dataset(test=9), 5 * BATCH_SIZE // 9
    images = np.broadcast_to(few.test_images, (times, *few.test_images.shape)).reshape(-1, 3, 32, 32)
    many = replace(few, test_images=images, test_labels=np.tile(few.test_labels, times))
    predictions, per_class = evaluate(many, tmp_path / "many")
    assert pq.ParquetFile(tmp_path / "many" / "predictions.parquet").num_row_groups == 3
    assert predictions["index"].tolist() == list(range(9 * times))
    assert predictions["label"].cat.codes.tolist() == many.test_labels.tolist()
    assert per_class["support"].tolist() == [3 * times] * 3
    expected, _ = evaluate(few, tmp_path / "few")
    repeated = predictions["prob_ant"].to_numpy().reshape(times, 9)
    assert np.allclose(repeated, expected["prob_ant"], atol=1e-6)


# Probabilities of a batch


def shift(inputs: Tensor, down: int, right: int) -> Tensor:
    """Shift images by at most a pixel, with reflected borders."""
    padded: Tensor = transform.pad(inputs, [1] * 4, padding_mode="reflect")
    return padded[..., 1 - down : 33 - down, 1 - right : 33 - right]


@pytest.mark.parametrize(
    ("augmentation", "shifts", "is_mirrored"),
    [
        ("none", [(0, 0)], False),
        ("flip", [(0, 0)], True),
        ("flip-and-shift", [(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)], True),
    ],
)
def test_logits_are_averaged_over_the_views_of_an_image(
    augmentation: TestAugmentation, shifts: list[tuple[int, int]], is_mirrored: bool
) -> None:
    network = init_network(TUTORIAL.model, 3, seed=1).eval()
    images = torch.from_numpy(tiny_dataset(test=5).test_images)
    probabilities = predict_probabilities(network, images, Normalization(), augmentation)
    inputs = normalize_images(images, Normalization())
    views = [shift(inputs, *by) for by in shifts]
    if is_mirrored:
        views += [view.flip(3) for view in views]
    with torch.no_grad():
        expected = torch.stack([network(view) for view in views]).mean(dim=0).softmax(dim=1)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities, expected, atol=1e-6)


def test_a_network_with_random_layers_repeats_its_predictions() -> None:
    network = init_network("custom_networks:random_network", 3, seed=1).eval()
    images = torch.from_numpy(tiny_dataset(test=5).test_images)
    before = torch.get_rng_state()
    one, again = (predict_probabilities(network, images, Normalization()) for _ in range(2))
    assert np.array_equal(one, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_infinite_logits_are_refused_in_one_line(wrong: float) -> None:
    network = init_network(TUTORIAL.model, 3, seed=1).eval()
    with torch.no_grad():
        network.get_parameter("fc3.bias")[1] = wrong
    with pytest.raises(InputError) as raised:
        predict_probabilities(network, torch.zeros(4, 3, 32, 32, dtype=torch.uint8), Normalization())
    assert str(raised.value) == (
        "evaluate: expected finite logits, got infinity or NaN for 4 of 4 images; "
        "the weights have diverged: train with a lower --learning-rate"
    )


# Log lines


def accuracy_lines(*rows: tuple[str, int, int]) -> list[str]:
    """Return the log lines for classes with a support and a number of correct predictions."""
    frame = pd.DataFrame(rows, columns=["class", "support", "correct"])
    frame["accuracy"] = frame["correct"] / frame["support"].where(frame["support"] > 0)
    with logged_lines() as lines:
        log_accuracy(frame)
    return lines


def test_the_accuracy_is_logged_in_the_tutorials_lines() -> None:
    counts = [527, 661, 310, 283, 505, 419, 700, 601, 699, 550]
    lines = accuracy_lines(*((name, 1_000, correct) for name, correct in zip(TUTORIAL_CLASSES, counts, strict=True)))
    assert lines[0] == "Accuracy of the network on the 10000 test images: 52 %"
    assert lines[1:11] == [
        f"Accuracy for class {name:5s} is: {correct / 10:.1f} %"
        for name, correct in zip(TUTORIAL_CLASSES, counts, strict=True)
    ]


def test_the_best_and_the_worst_class_come_last() -> None:
    lines = accuracy_lines(("ant", 10, 5), ("bee", 10, 9), ("cow", 8, 1))
    assert lines[-1] == "evaluate: best class bee 90.0%, worst class cow 12.5%"


def test_the_accuracy_is_logged_with_its_interval() -> None:
    lines = accuracy_lines(("ant", 5_000, 3_000), ("bee", 5_000, 2_408))
    assert lines[-2] == "evaluate: 54.08% on 10,000 test images (95% interval 53.1–55.1)"


def test_percent_are_rounded_down_as_in_the_tutorial() -> None:
    assert accuracy_lines(("ant", 2, 1), ("bee", 1, 1))[0] == "Accuracy of the network on the 3 test images: 66 %"


def test_a_class_without_test_images_is_not_logged() -> None:
    lines = accuracy_lines(("ant", 0, 0), ("bee", 4, 3), ("cow", 4, 1), ("dog", 0, 0))
    assert len(lines) == 5
    assert lines[-1] == "evaluate: best class bee 75.0%, worst class cow 25.0%"
    assert not any("ant" in line or "dog" in line or "nan" in line for line in lines)


def test_the_scores_are_logged_in_one_line(tmp_path: Path, log: list[str]) -> None:
    evaluate(tiny_dataset(), tmp_path / "weights")
    scores = read_scores(tmp_path / "weights")
    log_scores(scores)
    loss, error = (scores.scores[name].value for name in ("log_loss", "expected_calibration_error"))
    assert log == [f"evaluate: log loss {loss:.3f}, expected calibration error {100 * error:.1f}%"]


def test_a_long_evaluation_logs_its_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]) -> None:
    folder = tmp_path / "evaluated"
    evaluate(tiny_dataset(test=600), folder)
    monkeypatch.setattr("tasks.core.evaluation.evaluate.LOG_EVERY_S", 0)
    build_predictions(tmp_path, folder, folder, TUTORIAL, CPU, INPUTS)
    assert log == [f"evaluate: {done} of 600 images" for done in (250, 500, 600)]
