"""The dataset artifact: its arrays on disk, their normalization and its identity."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from tiny import CLASSES, official_archive, save_dataset, tiny_archive, tiny_batch, tiny_dataset
from torchvision import transforms

from tasks.core.config import Normalization
from tasks.core.data.archive import TUTORIAL_CLASSES, Archive, BadArchive, read_archive
from tasks.core.data.dataset import (
    ARRAYS,
    Dataset,
    Images,
    build_dataset,
    identify,
    load_dataset,
    normalize_images,
)
from tasks.core.data.identity import OFFICIAL_SHA256, Identity
from tasks.core.runtime.files import sha256_of

HALF = (0.5, 0.5, 0.5)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def torchvision_inputs(images: Images, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """The result of the tutorial's transforms, one PIL image at a time."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    return torch.stack([transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images])


def every_byte() -> Images:
    """Images with all 256 values in each channel."""
    ramp = np.arange(3 * 32 * 32).reshape(3, 32, 32) % 256
    return np.stack([ramp, ramp[:, ::-1], 255 - ramp]).astype(np.uint8)


@pytest.mark.parametrize(("mean", "std"), [(HALF, HALF), (CIFAR_MEAN, CIFAR_STD)])
@pytest.mark.parametrize("images", [every_byte(), tiny_batch(20).images], ids=["every byte", "noise"])
def test_normalizing_equals_the_transforms_of_torchvision(
    images: Images, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    inputs = normalize_images(torch.from_numpy(images), Normalization(mean=mean, std=std))
    expected = torchvision_inputs(images, mean, std)
    assert inputs.dtype == expected.dtype == torch.float32
    assert inputs.shape == expected.shape
    assert (inputs - expected).abs().max() <= 1e-6


def test_the_default_normalization_maps_bytes_to_minus_one_to_one() -> None:
    inputs = normalize_images(torch.from_numpy(every_byte()), Normalization())
    assert (inputs.min().item(), inputs.max().item()) == (-1, 1)


def test_normalizing_does_not_change_the_input() -> None:
    images = torch.from_numpy(every_byte())
    normalize_images(images, Normalization())
    assert np.array_equal(images.numpy(), every_byte())


# On disk


def test_a_saved_dataset_loads_unchanged(tmp_path: Path) -> None:
    saved = tiny_dataset()
    save_dataset(saved, tmp_path)
    loaded = load_dataset(tmp_path)
    for name in ("identity", "classes", "normalization"):
        assert getattr(loaded, name) == getattr(saved, name)
    for name in ARRAYS:
        assert getattr(loaded, name).dtype == np.uint8
        assert np.array_equal(getattr(loaded, name), getattr(saved, name))


def test_arrays_are_memory_mapped_and_writes_never_reach_the_files(tmp_path: Path) -> None:
    save_dataset(tiny_dataset(), tmp_path)
    loaded = load_dataset(tmp_path)
    for name in ARRAYS:
        assert isinstance(getattr(loaded, name), np.memmap)
        getattr(loaded, name)[:] = 77
        assert np.array_equal(getattr(load_dataset(tmp_path), name), getattr(tiny_dataset(), name))


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    archive = official_archive(tmp_path / "archive.tar.gz")
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        build_dataset(folder, archive, Normalization())
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()


def test_arrays_with_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    save_dataset(tiny_dataset(), tmp_path)
    np.save(tmp_path / "train_labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        load_dataset(tmp_path)


def test_metadata_with_unknown_fields_is_not_loaded(tmp_path: Path) -> None:
    save_dataset(tiny_dataset(), tmp_path)
    metadata = json.loads((tmp_path / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(metadata | {"more": 1}))
    with pytest.raises(ValidationError, match="more"):
        load_dataset(tmp_path)


def test_a_built_dataset_has_the_images_classes_and_digest(tmp_path: Path) -> None:
    train, test = tiny_batch(7), tiny_batch(4, seed=1)
    path = official_archive(tmp_path / "archive.tar.gz", train=[train], test=test)
    normalization = Normalization(mean=CIFAR_MEAN, std=CIFAR_STD)
    (tmp_path / "dataset").mkdir()

    build_dataset(tmp_path / "dataset", path, normalization)

    dataset = load_dataset(tmp_path / "dataset")
    assert np.array_equal(dataset.train_images, train.images)
    assert np.array_equal(dataset.train_labels, train.labels)
    assert np.array_equal(dataset.test_images, test.images)
    assert np.array_equal(dataset.test_labels, test.labels)
    assert dataset.classes == CLASSES
    assert dataset.normalization == normalization
    assert (dataset.identity.kind, dataset.identity.sha256) == ("archive", sha256_of(path))


def test_several_batches_are_joined_in_order(tmp_path: Path) -> None:
    batches = [tiny_batch(3, seed=seed) for seed in range(3)]
    build_dataset(tmp_path, official_archive(tmp_path / "archive", train=batches), Normalization())
    images = load_dataset(tmp_path).train_images
    assert np.array_equal(images, np.concatenate([batch.images for batch in batches]))


def test_a_damaged_archive_leaves_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(official_archive(tmp_path / "whole").read_bytes()[:5_000])
    (tmp_path / "dataset").mkdir()
    with pytest.raises(BadArchive):
        build_dataset(tmp_path / "dataset", tmp_path / "archive", Normalization())
    assert list((tmp_path / "dataset").iterdir()) == []


# The identity


def test_official_ranks_above_other_archives_and_those_above_generated() -> None:
    ranks = [Identity(kind=kind, name="x", sha256="x").rank for kind in ("official", "archive", "generated")]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == 3


def archive_of(classes: list[str]) -> Archive:
    return Archive(tuple(classes), False, (tiny_batch(),), tiny_batch(), is_cifar10=classes == TUTORIAL_CLASSES)


def test_only_the_official_archive_is_named_plain_cifar10() -> None:
    official = identify(archive_of(TUTORIAL_CLASSES), OFFICIAL_SHA256)
    assert (official.kind, official.name, official.is_generated) == ("official", "CIFAR-10", False)
    other = identify(archive_of(TUTORIAL_CLASSES), "ab" * 32)
    assert other.kind == "archive"
    assert "unofficial" in other.name
    own = identify(archive_of(["ant", "bee"]), "ab" * 32)
    assert own.kind == "archive"
    assert "CIFAR" not in own.name


def test_generated_images_are_named_as_such(tmp_path: Path) -> None:
    build_dataset(tmp_path, tiny_archive(tmp_path / "archive"), Normalization())
    identity = load_dataset(tmp_path).identity
    assert identity.is_generated
    assert "not CIFAR-10" in identity.name


def test_different_archives_of_the_same_classes_have_different_names() -> None:
    first, second = (identify(archive_of(["ant", "bee"]), digest * 32) for digest in ("ab", "cd"))
    assert first.name != second.name


def test_the_class_names_of_the_tutorial_do_not_make_it_cifar10(tmp_path: Path) -> None:
    path = official_archive(tmp_path / "archive", TUTORIAL_CLASSES)
    try:
        archive = read_archive(path)
    except BadArchive:  # refusing it, as with the names of CIFAR-10, is allowed too
        return
    assert not identify(archive, sha256_of(path)).name.startswith("CIFAR-10")


def test_a_dataset_has_classes_identity_and_normalization() -> None:
    dataset: Dataset = tiny_dataset(kind="generated")
    assert (dataset.classes, dataset.identity.kind) == (CLASSES, "generated")
    assert dataset.normalization == Normalization(mean=HALF, std=HALF)
