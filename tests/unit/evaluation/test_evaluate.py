"""Evaluation: what stored weights answer for every test image, and what that comes to for each class."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import torchvision.transforms.functional as transformed
from tiny import CLASSES, tiny_dataset
from torch import Tensor
from torchvision import transforms

from tasks.core.config import Normalization
from tasks.core.data.archive import TUTORIAL_CLASSES
from tasks.core.data.dataset import Dataset, copy_images, expand, save_dataset
from tasks.core.errors import InputError
from tasks.core.evaluation.evaluate import (
    BATCH_SIZE,
    build_per_class,
    build_predictions,
    class_probabilities,
    log_accuracy,
    log_scores,
)
from tasks.core.evaluation.metrics import read_scores
from tasks.core.models.factory import init_network
from tasks.core.models.weights import Lineage, save_weights
from tasks.core.recipes import RECIPES, TestAugmentation
from tasks.core.runtime.parquet import read_facts, read_table

TUTORIAL = RECIPES["tutorial"]
CPU = torch.device("cpu")
INPUTS = {"dataset": "ab" * 32, "weights": "cd" * 32}
PEAK = """
import resource, sys
from pathlib import Path
import torch
from tasks.core.evaluation.evaluate import build_predictions, build_per_class
from tasks.core.recipes import RECIPES
dataset, weights = map(Path, sys.argv[1:])
build_predictions(dataset, dataset, weights, RECIPES["tutorial"], torch.device("cpu"), {})
build_per_class(dataset, dataset, {})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
PREDICTIONS = {"predictions": "ef" * 32}


def evaluated(dataset: Dataset, folder: Path, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables for a network with the first weights of a seed, through files as in a run."""
    folder.mkdir()
    lineage = Lineage(recipe=TUTORIAL, seed=seed, classes=dataset.classes, dataset=dataset.identity)
    save_weights(folder, init_network(TUTORIAL.model, len(dataset.classes), seed), lineage)
    save_dataset(dataset, folder)
    build_predictions(folder, folder, folder, TUTORIAL, CPU, INPUTS)
    build_per_class(folder, folder, PREDICTIONS)
    return read_table(folder / "predictions.parquet"), read_table(folder / "per_class.parquet")


def peak_of_evaluating(images: int, folder: Path) -> int:
    """The most memory, in bytes, that a process has resident which evaluates so many mapped images."""
    dataset = folder / f"{images} images"
    dataset.mkdir()
    few = tiny_dataset(train=1, test=1)
    arrays = np.zeros((images, 3, 32, 32), np.uint8), np.zeros(images, np.uint8)
    save_dataset(Dataset(few.description, few.train_images, few.train_labels, *arrays), dataset)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, dataset, folder / "weights"], check=True, capture_output=True, text=True
    )
    return 1024 * int(done.stdout)


def test_every_test_image_gets_the_answer_of_the_stored_weights_in_its_own_row(tmp_path: Path) -> None:
    dataset = tiny_dataset(test=BATCH_SIZE + 5)
    predictions, _ = evaluated(dataset, tmp_path / "seven", seed=7)
    network = init_network(TUTORIAL.model, len(CLASSES), seed=7).eval()
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    images = torch.stack([transform(image.transpose(1, 2, 0)) for image in dataset.test_images])
    with torch.no_grad():
        expected = network(images).softmax(dim=1).numpy()

    assert predictions["index"].tolist() == list(range(BATCH_SIZE + 5))
    assert predictions["label"].cat.codes.tolist() == dataset.test_labels.tolist()
    assert np.allclose(predictions[[f"prob_{name}" for name in CLASSES]], expected, atol=1e-6)
    answer = np.array(CLASSES)[expected.argmax(axis=1)]
    clear = np.diff(np.sort(expected), axis=1)[:, -1] > 1e-5  # elsewhere the last bits decide
    assert clear.mean() > 0.99
    assert (predictions["predicted"].astype(str).to_numpy() == answer)[clear].all()


def test_other_weights_give_other_answers(tmp_path: Path) -> None:
    first, second = (evaluated(tiny_dataset(), tmp_path / str(seed), seed)[0] for seed in (1, 2))
    assert not np.allclose(first["confidence"], second["confidence"])


def test_probabilities_add_up_to_one_and_the_greatest_is_the_answers(tmp_path: Path) -> None:
    predictions, _ = evaluated(tiny_dataset(), tmp_path / "weights")
    probabilities = predictions[[f"prob_{name}" for name in CLASSES]]
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (predictions["confidence"] == probabilities.max(axis=1)).all()
    greatest = [str(name) for name in probabilities.idxmax(axis=1)]
    assert [f"prob_{name}" for name in predictions["predicted"]] == greatest


@pytest.mark.parametrize("classes", [CLASSES, tuple(f"class {number}" for number in range(40))])
def test_both_tables_count_the_same_images_class_by_class(tmp_path: Path, classes: tuple[str, ...]) -> None:
    predictions, per_class = evaluated(tiny_dataset(classes, test=120), tmp_path / "weights")
    assert list(per_class["class"]) == list(classes)
    for row in per_class.to_dict("records"):
        of_class = predictions[predictions["label"] == row["class"]]
        assert (row["support"], row["correct"]) == (len(of_class), of_class["correct"].sum())
    assert per_class["correct"].sum() == predictions["correct"].sum() > 0
    assert per_class["support"].sum() == 120


def test_evaluating_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        evaluated(tiny_dataset(), tmp_path / name)
    for name in ("predictions.parquet", "per_class.parquet", "calibration.parquet", "scores.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_each_table_says_which_weights_recipe_and_images_it_is_of(tmp_path: Path) -> None:
    dataset = tiny_dataset(kind="generated")
    evaluated(dataset, tmp_path / "weights", seed=5)
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


def test_a_dataset_without_some_of_its_classes_among_the_test_images_is_evaluated(tmp_path: Path) -> None:
    _, per_class = evaluated(tiny_dataset([f"class {number}" for number in range(8)], test=3), tmp_path / "weights")
    assert per_class["support"].sum() == 3
    assert per_class["accuracy"].isna().sum() == 5


# Many images


def test_images_of_a_mapped_file_are_those_in_memory_and_their_pages_do_not_stay(tmp_path: Path) -> None:
    images = tiny_dataset(test=50).test_images
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    for part in (slice(0, 7), slice(40, 60)):
        for source in (images, mapped, mapped[:]):
            copy = copy_images(source, part)
            assert np.array_equal(copy, images[part])
            assert copy.base is None


def test_many_images_are_evaluated_in_the_memory_that_few_are(tmp_path: Path) -> None:
    """The images that there are more take 92 MB."""
    dataset = tiny_dataset(test=1)
    (tmp_path / "weights").mkdir()
    lineage = Lineage(recipe=TUTORIAL, seed=1, classes=dataset.classes, dataset=dataset.identity)
    save_weights(tmp_path / "weights", init_network(TUTORIAL.model, len(dataset.classes), 1), lineage)
    peaks = [peak_of_evaluating(images, tmp_path) for images in (2_000, 32_000)]
    assert peaks[1] - peaks[0] < 40e6


def test_many_images_are_one_table_in_the_order_of_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.evaluation.evaluate.ROW_GROUP", 2 * BATCH_SIZE)
    few, times = tiny_dataset(test=9), 5 * BATCH_SIZE // 9
    images = np.broadcast_to(few.test_images, (times, *few.test_images.shape)).reshape(-1, 3, 32, 32)
    many = Dataset(few.description, few.train_images, few.train_labels, images, np.tile(few.test_labels, times))
    predictions, per_class = evaluated(many, tmp_path / "many")
    assert pq.ParquetFile(tmp_path / "many" / "predictions.parquet").num_row_groups == 3
    assert predictions["index"].tolist() == list(range(9 * times))
    assert predictions["label"].cat.codes.tolist() == many.test_labels.tolist()
    assert per_class["support"].tolist() == [3 * times] * 3
    expected, _ = evaluated(few, tmp_path / "few")
    repeated = predictions["prob_ant"].to_numpy().reshape(times, 9)
    assert np.allclose(repeated, expected["prob_ant"], atol=1e-6)


# Probabilities of a batch


def moved(inputs: Tensor, down: int, right: int) -> Tensor:
    """Images moved by a pixel at most; what comes in from beyond an edge is reflected."""
    edged: Tensor = transformed.pad(inputs, [1] * 4, padding_mode="reflect")
    return edged[..., 1 - down : 33 - down, 1 - right : 33 - right]


@pytest.mark.parametrize(
    ("augmentation", "shifts", "mirrored_too"),
    [
        ("none", [(0, 0)], False),
        ("flip", [(0, 0)], True),
        ("flip-and-shift", [(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)], True),
    ],
)
def test_a_batch_has_the_probabilities_of_the_mean_logits_of_each_images_views(
    augmentation: TestAugmentation, shifts: list[tuple[int, int]], mirrored_too: bool
) -> None:
    network = init_network(TUTORIAL.model, 3, seed=1).eval()
    images = torch.from_numpy(tiny_dataset(test=5).test_images)
    found = class_probabilities(network, images, Normalization(), augmentation)
    inputs = expand(images, Normalization())
    views = [moved(inputs, *by) for by in shifts]
    if mirrored_too:
        views += [view.flip(3) for view in views]
    with torch.no_grad():
        expected = torch.stack([network(view) for view in views]).mean(dim=0).softmax(dim=1)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, atol=1e-6)


def test_a_network_that_draws_when_it_is_asked_gives_the_same_answers_each_time() -> None:
    network = init_network("own_networks:drawing_network", 3, seed=1).eval()
    images = torch.from_numpy(tiny_dataset(test=5).test_images)
    before = torch.get_rng_state()
    one, again = (class_probabilities(network, images, Normalization()) for _ in range(2))
    assert np.array_equal(one, again)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_in_one_line(wrong: float) -> None:
    network = init_network(TUTORIAL.model, 3, seed=1).eval()
    with torch.no_grad():
        network.get_parameter("fc3.bias")[1] = wrong
    with pytest.raises(InputError) as raised:
        class_probabilities(network, torch.zeros(4, 3, 32, 32, dtype=torch.uint8), Normalization())
    assert str(raised.value) == (
        "evaluate: expected finite logits, got infinite ones or NaN for 4 of 4 images; "
        "the weights have diverged: train with a lower --learning-rate"
    )


# What is said


def said(rows: list[tuple[str, int, int]]) -> list[str]:
    frame = pd.DataFrame(rows, columns=["class", "support", "correct"])
    frame["accuracy"] = frame["correct"] / frame["support"].where(frame["support"] > 0)
    lines: list[str] = []
    log_accuracy(frame, lines.append)
    return lines


def test_the_accuracy_is_said_in_the_tutorials_words() -> None:
    counts = [527, 661, 310, 283, 505, 419, 700, 601, 699, 550]
    lines = said([(name, 1_000, correct) for name, correct in zip(TUTORIAL_CLASSES, counts, strict=True)])
    assert lines[0] == "Accuracy of the network on the 10000 test images: 52 %"
    assert lines[1:11] == [
        f"Accuracy for class {name:5s} is: {correct / 10:.1f} %"
        for name, correct in zip(TUTORIAL_CLASSES, counts, strict=True)
    ]


def test_the_best_and_the_worst_class_come_last() -> None:
    assert (
        said([("ant", 10, 5), ("bee", 10, 9), ("cow", 8, 1)])[-1]
        == "Best class: bee (90.0 %), worst class: cow (12.5 %)"
    )


def test_percent_of_all_images_are_rounded_down_as_in_the_tutorial() -> None:
    assert said([("ant", 2, 1), ("bee", 1, 1)])[0] == "Accuracy of the network on the 3 test images: 66 %"


def test_a_class_without_test_images_is_neither_best_nor_worst_nor_said() -> None:
    lines = said([("ant", 0, 0), ("bee", 4, 3), ("cow", 4, 1), ("dog", 0, 0)])
    assert len(lines) == 4
    assert lines[-1] == "Best class: bee (75.0 %), worst class: cow (25.0 %)"
    assert not any("ant" in line or "dog" in line or "nan" in line for line in lines)


def test_the_scores_are_said_in_one_line(tmp_path: Path) -> None:
    evaluated(tiny_dataset(), tmp_path / "weights")
    lines: list[str] = []
    scores = read_scores(tmp_path / "weights")
    log_scores(scores, lines.append)
    loss, error = (scores.scores[name].value for name in ("log_loss", "expected_calibration_error"))
    assert lines == [f"Log loss: {loss:.3f}, expected calibration error: {100 * error:.1f} %"]


def test_who_waits_for_an_evaluation_is_told_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "evaluated"
    evaluated(tiny_dataset(test=600), folder)
    said: list[str] = []
    monkeypatch.setattr("tasks.core.evaluation.evaluate.SAID_EVERY_S", 0)
    build_predictions(tmp_path, folder, folder, TUTORIAL, CPU, INPUTS, said.append)
    assert said == [f"evaluate: {done} of 600 images" for done in (250, 500, 600)]
