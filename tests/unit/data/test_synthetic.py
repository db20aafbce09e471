"""Generated images and their archive."""

import gzip
import io
import pickle
import pickletools
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.data.synthetic import CLASSES, generate_images, write_archive

BATCHES = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synthetic") / "archive.tar.gz"
    write_archive(path, train=100, test=20)
    return path


def members(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {info.name: member.read() for info in tar if (member := tar.extractfile(info))}


def unpickled(archive: Path, name: str) -> dict[bytes, Any]:
    payload = members(archive)[f"cifar-10-batches-py/{name}"]
    content: dict[bytes, Any] = pickle.load(io.BytesIO(payload), encoding="bytes")  # noqa: S301 - written by this test
    return content


def test_classes_are_balanced_and_shuffled() -> None:
    images, labels = generate_images(50, np.random.default_rng(7))
    assert images.shape == (50, 3, 32, 32)
    assert images.dtype == labels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [5] * 10
    assert labels.tolist() != sorted(labels.tolist())


def test_any_number_of_images_can_be_generated() -> None:
    images, labels = generate_images(7, np.random.default_rng(7))
    assert len(set(labels.tolist())) == 7
    assert (images.std(axis=(1, 2, 3)) > 0).all()


def test_images_depend_only_on_the_seed() -> None:
    first, again, other = (generate_images(20, np.random.default_rng(seed))[0] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_there_are_ten_classes_with_lower_case_names() -> None:
    assert len(set(CLASSES)) == 10
    assert all(name.isalpha() and name.islower() for name in CLASSES)


def test_the_archive_is_byte_identical_on_every_write(archive: Path, tmp_path: Path) -> None:
    write_archive(tmp_path / "again.tar.gz", train=100, test=20)
    assert (tmp_path / "again.tar.gz").read_bytes() == archive.read_bytes()


def test_the_archive_has_the_official_members_without_dates(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        assert tar.getnames() == [f"cifar-10-batches-py/{name}" for name in [*BATCHES, "test_batch", "batches.meta"]]
        assert {info.mtime for info in tar} == {0}
    with gzip.open(archive) as zipped:
        zipped.read(1)
        assert zipped.mtime == 0


@pytest.mark.parametrize("name", [*BATCHES, "test_batch"])
def test_a_batch_has_pixels_labels_and_file_names(archive: Path, name: str) -> None:
    batch = unpickled(archive, name)
    assert set(batch) == {"batch_label", "labels", "data", "filenames"}
    assert batch["data"].shape == (20, 3072)
    assert batch["data"].dtype == np.uint8
    assert [type(label) for label in batch["labels"]] == [int] * 20
    assert [file.split("_")[0] for file in batch["filenames"]] == [CLASSES[i] for i in batch["labels"]]


def test_the_batches_contain_the_generated_images_in_order(archive: Path) -> None:
    images, labels = generate_images(100, np.random.default_rng(1))
    batches = [unpickled(archive, name) for name in BATCHES]
    assert np.array_equal(np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32), images)
    assert [label for batch in batches for label in batch["labels"]] == labels.tolist()


def test_the_meta_file_has_the_classes_and_the_generated_marker(archive: Path) -> None:
    meta = unpickled(archive, "batches.meta")
    assert meta.pop("generated") == 1
    assert meta == {
        "num_cases_per_batch": 20,
        "label_names": list(CLASSES),
        "num_vis": 3072,
    }


def test_the_pickles_contain_only_numpy_arrays_and_plain_data(archive: Path) -> None:
    opcodes = [(op.name, arg) for payload in members(archive).values() for op, arg, _ in pickletools.genops(payload)]
    assert {name for name, _ in opcodes}.isdisjoint({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
    assert {arg for name, arg in opcodes if name == "GLOBAL"} == {
        "numpy._core.multiarray _reconstruct",
        "numpy ndarray",
        "numpy dtype",
    }


def test_training_and_test_images_differ(archive: Path) -> None:
    train = {row.tobytes() for name in BATCHES for row in unpickled(archive, name)["data"]}
    test = {row.tobytes() for row in unpickled(archive, "test_batch")["data"]}
    assert len(train) == 100
    assert train.isdisjoint(test)
