"""Reading archives in the official layout, written by Python 2 or 3, and refusing invalid ones."""

import gzip
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from archives import (
    FOLDER,
    SMALL,
    TEST,
    TRAIN,
    assert_holds,
    plain_tar,
    python2_batch,
    python2_meta,
    refusal,
    training_batch,
)
from tiny import (
    CLASSES,
    add_member,
    official_archive,
    pickled_batch,
    pickled_meta,
    tiny_archive,
    tiny_batch,
    write_members,
)

from tasks.core.data.archive import CIFAR10_LABEL_NAMES, TUTORIAL_CLASSES, Batch, read_archive


def test_pickles_of_python_2_are_read(tmp_path: Path) -> None:
    members = {
        "batches.meta": python2_meta(CLASSES),
        "data_batch_1": python2_batch(TRAIN),
        "test_batch": python2_batch(TEST),
    }
    archive = read_archive(write_members(tmp_path / "archive", members))
    assert archive.classes == CLASSES
    assert not archive.is_generated
    assert_holds(archive)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickles_of_python_3_are_read(tmp_path: Path, protocol: int) -> None:
    members = {
        "batches.meta": pickled_meta(CLASSES, protocol),
        "data_batch_1": pickled_batch(TRAIN, protocol),
        "test_batch": pickled_batch(TEST, protocol),
    }
    archive = read_archive(write_members(tmp_path / "archive", members))
    assert archive.classes == CLASSES
    assert_holds(archive)


def test_keys_and_class_names_may_be_python_3_strings(tmp_path: Path) -> None:
    rows = TRAIN.images.reshape(len(TRAIN.images), -1)
    batch = pickle.dumps({"labels": TRAIN.labels.tolist(), "data": rows}, 2)
    meta = pickle.dumps({"label_names": ["ant", "bee", "Kühe 牛"]}, 2)
    archive = read_archive(official_archive(tmp_path / "a", members={"data_batch_1": batch, "batches.meta": meta}))
    assert archive.classes == ("ant", "bee", "Kühe 牛")
    assert_holds(archive)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_every_tar_compression_is_read(tmp_path: Path, compression: str) -> None:
    members = {
        "batches.meta": pickled_meta(CLASSES),
        "data_batch_1": pickled_batch(TRAIN),
        "test_batch": pickled_batch(TEST),
    }
    assert_holds(read_archive(write_members(tmp_path / "archive", members, compression)))


def test_rows_are_decoded_by_channel_then_line_then_column(tmp_path: Path) -> None:
    row = bytes(range(256)) * 12
    members = {"test_batch": pickle.dumps({b"labels": [2], b"data": np.frombuffer(row, np.uint8)[None]}, 2)}
    image = read_archive(official_archive(tmp_path / "a", members=members)).test.images[0]
    for channel, y, x in ((0, 0, 31), (1, 0, 0), (1, 2, 5), (2, 31, 31)):
        assert image[channel, y, x] == row[1024 * channel + 32 * y + x]


def test_batches_are_ordered_by_number(tmp_path: Path) -> None:
    batches = {f"data_batch_{number}": tiny_batch(3, seed=number) for number in (10, 1, 9, 2)}
    members = {name: pickled_batch(batch) for name, batch in batches.items()}
    members |= {"batches.meta": pickled_meta(CLASSES), "test_batch": pickled_batch(TEST)}
    archive = read_archive(write_members(tmp_path / "archive", members))
    in_order = [batches[f"data_batch_{number}"].images for number in (1, 2, 9, 10)]
    assert np.array_equal(training_batch(archive).images, np.concatenate(in_order))


def test_other_members_are_ignored(tmp_path: Path) -> None:
    others = {"readme.html": b"<p>", "data_batch_1.bak": b"x", "._data_batch_1": b"x", "my_test_batch": b"x"}
    assert_holds(read_archive(official_archive(tmp_path / "archive", members=others)))


def test_a_generated_archive_is_marked_as_generated(tmp_path: Path) -> None:
    assert read_archive(tiny_archive(tmp_path / "archive")).is_generated
    assert not read_archive(official_archive(tmp_path / "own")).is_generated


# The names of CIFAR-10


def black_batch(per_class: int) -> Batch:
    labels = np.tile(np.arange(10, dtype=np.uint8), per_class)
    return Batch(np.zeros((len(labels), 3, 32, 32), np.uint8), labels)


def test_the_classes_of_cifar10_get_the_names_of_the_tutorial(tmp_path: Path) -> None:
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    members = {"batches.meta": pickled_meta(CIFAR10_LABEL_NAMES)} | dict.fromkeys(
        names, pickled_batch(black_batch(1_000))
    )
    archive = read_archive(write_members(tmp_path / "archive", members, compression=""))
    assert archive.classes == tuple(TUTORIAL_CLASSES)
    assert archive.classes == ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert (len(training_batch(archive).labels), len(archive.test.labels)) == (50_000, 10_000)


def test_an_archive_with_the_names_of_cifar10_must_have_its_counts(tmp_path: Path) -> None:
    message = refusal(official_archive(tmp_path / "archive", CIFAR10_LABEL_NAMES, [tiny_batch(20, 10)], TEST))
    assert "5,000 of each" in message
    assert f"got {[2] * 10}" in message


# Damaged archives and other layouts


@pytest.mark.parametrize("missing", ["batches.meta", "data_batch_1", "test_batch"])
def test_a_missing_member_is_named(tmp_path: Path, missing: str) -> None:
    assert missing in refusal(official_archive(tmp_path / "archive", members={missing: None}))


@pytest.mark.parametrize(
    "body", [b"", b"not a tar", bytes(10_240), gzip.compress(b"", mtime=0), gzip.compress(b"not a tar", mtime=0)]
)
def test_a_file_that_is_no_tar_archive_is_refused_by_name(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(body)
    assert refusal(tmp_path / "archive.tar.gz").startswith("archive.tar.gz: expected ")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "archive.tar.gz").startswith("archive.tar.gz: expected ")


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_an_archive_truncated_anywhere_is_refused(tmp_path: Path, compression: str) -> None:
    members = {
        "batches.meta": pickled_meta(CLASSES),
        "test_batch": pickled_batch(TEST),
        "data_batch_1": pickled_batch(TRAIN),
    }
    whole = write_members(tmp_path / "whole", members, compression).read_bytes()
    for size in range(0, len(whole) * 99 // 100, len(whole) // 100):
        (tmp_path / "archive").write_bytes(whole[:size])
        refusal(tmp_path / "archive")


def test_a_wrong_gzip_checksum_is_refused(tmp_path: Path) -> None:
    stored = gzip.compress(plain_tar(SMALL | {"data_batch_1": python2_batch(TRAIN)}), compresslevel=0)
    pixel = stored.index(TRAIN.images[0].tobytes()[:100])
    changed = bytes([stored[pixel] ^ 1])
    (tmp_path / "archive").write_bytes(stored[:pixel] + changed + stored[pixel + 1 :])
    refusal(tmp_path / "archive")


def test_a_missing_gzip_trailer_is_refused(tmp_path: Path) -> None:
    whole = official_archive(tmp_path / "whole").read_bytes()
    (tmp_path / "archive").write_bytes(whole[:-1])
    refusal(tmp_path / "archive")


def test_a_second_member_of_the_same_name_is_refused(tmp_path: Path) -> None:
    path = official_archive(tmp_path / "archive")
    for folder in ("", "other/"):
        with tarfile.open(path) as whole, tarfile.open(tmp_path / "twice", "w") as tar:
            for info in whole:
                tar.addfile(info, whole.extractfile(info))
            add_member(tar, f"{folder}test_batch", pickled_batch(TEST))
        assert refusal(tmp_path / "twice").startswith("test_batch: ")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE],
    ids=["symlink", "hard link", "folder", "pipe", "device"],
)
@pytest.mark.parametrize("target", ["data_batch_1", "missing", "../../../../../../etc/hostname"])
def test_a_member_that_is_no_regular_file_is_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    link = tarfile.TarInfo(f"{FOLDER}/test_batch")
    link.type = kind
    link.linkname = f"{FOLDER}/{target}" if kind == tarfile.LNKTYPE else target
    with tarfile.open(tmp_path / "archive", "w") as tar:
        add_member(tar, "batches.meta", pickled_meta(CLASSES))
        add_member(tar, "data_batch_1", pickled_batch(TRAIN))
        tar.addfile(link)
    assert refusal(tmp_path / "archive").startswith("test_batch: ")


def test_reading_writes_nothing_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = official_archive(tmp_path / "archive")
    monkeypatch.chdir(tmp_path)
    read_archive(path)
    assert list(tmp_path.iterdir()) == [path]
