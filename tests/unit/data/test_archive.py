"""Reading archives: the official layout as Python 2 and 3 wrote it, and what does not fit it."""

import gzip
import pickle
import struct
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
)
from numpy.typing import NDArray
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
    assert not archive.generated
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


def test_keys_and_names_may_be_text_as_python_3_would_have_them(tmp_path: Path) -> None:
    rows = TRAIN.images.reshape(len(TRAIN.images), -1)
    batch = pickle.dumps({"labels": TRAIN.labels.tolist(), "data": rows}, 2)
    meta = pickle.dumps({"label_names": ["ant", "bee", "Kühe 牛"]}, 2)
    archive = read_archive(official_archive(tmp_path / "a", members={"data_batch_1": batch, "batches.meta": meta}))
    assert archive.classes == ("ant", "bee", "Kühe 牛")
    assert_holds(archive)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_any_compression_of_tar_is_read(tmp_path: Path, compression: str) -> None:
    members = {
        "batches.meta": pickled_meta(CLASSES),
        "data_batch_1": pickled_batch(TRAIN),
        "test_batch": pickled_batch(TEST),
    }
    assert_holds(read_archive(write_members(tmp_path / "archive", members, compression)))


def test_a_row_is_all_red_then_all_green_then_all_blue_line_by_line(tmp_path: Path) -> None:
    row = bytes(range(256)) * 12
    members = {"test_batch": pickle.dumps({b"labels": [2], b"data": np.frombuffer(row, np.uint8)[None]}, 2)}
    image = read_archive(official_archive(tmp_path / "a", members=members)).test.images[0]
    for channel, y, x in ((0, 0, 31), (1, 0, 0), (1, 2, 5), (2, 31, 31)):
        assert image[channel, y, x] == row[1024 * channel + 32 * y + x]


def test_batches_follow_their_numbers_whatever_their_order_in_the_archive(tmp_path: Path) -> None:
    batches = {f"data_batch_{number}": tiny_batch(3, seed=number) for number in (10, 1, 9, 2)}
    members = {name: pickled_batch(batch) for name, batch in batches.items()}
    members |= {"batches.meta": pickled_meta(CLASSES), "test_batch": pickled_batch(TEST)}
    archive = read_archive(write_members(tmp_path / "archive", members))
    in_order = [batches[f"data_batch_{number}"].images for number in (1, 2, 9, 10)]
    assert np.array_equal(archive.train.images, np.concatenate(in_order))


def test_members_that_are_not_images_are_passed_over(tmp_path: Path) -> None:
    others = {"readme.html": b"<p>", "data_batch_1.bak": b"x", "._data_batch_1": b"x", "my_test_batch": b"x"}
    assert_holds(read_archive(official_archive(tmp_path / "archive", members=others)))


def test_a_generated_archive_says_so(tmp_path: Path) -> None:
    assert read_archive(tiny_archive(tmp_path / "archive")).generated
    assert not read_archive(official_archive(tmp_path / "own")).generated


# CIFAR-10's own names


def black(per_class: int) -> Batch:
    labels = np.tile(np.arange(10, dtype=np.uint8), per_class)
    return Batch(np.zeros((len(labels), 3, 32, 32), np.uint8), labels)


def test_cifar10s_ten_classes_get_the_tutorials_names(tmp_path: Path) -> None:
    train = [black(1_000)] * 5
    path = official_archive(tmp_path / "archive", CIFAR10_LABEL_NAMES, train, black(1_000))
    archive = read_archive(path)
    assert archive.classes == tuple(TUTORIAL_CLASSES)
    assert archive.classes == ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert (len(archive.train.labels), len(archive.test.labels)) == (50_000, 10_000)


def test_an_archive_that_claims_cifar10s_names_must_have_its_counts(tmp_path: Path) -> None:
    message = refusal(official_archive(tmp_path / "archive", CIFAR10_LABEL_NAMES, [tiny_batch(20, 10)], TEST))
    assert "5,000 of each" in message
    assert f"got {[2] * 10}" in message


# Labels, pixels and names that do not fit


def batch_with(**entries: object) -> bytes:
    rows = TRAIN.images.reshape(len(TRAIN.images), -1)
    content: dict[bytes, object] = {b"labels": TRAIN.labels.tolist(), b"data": rows}
    return pickle.dumps(content | {name.encode(): value for name, value in entries.items()}, 2)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 2, 0, 1, 3],
        [0, 1, 2, 0, 1, -1],
        [0, 1, 2, 0, 1, 256],
        [0, 1, 2, 0, 1, 2.0],
        [False, True, 2, 0, 1, 2],
        [0, 1, 2, 0, 1, None],
        [0, 1, 2, 0, 1, [2]],
        (0, 1, 2, 0, 1, 2),
        b"\x00\x01\x02\x00\x01\x02",
        {0: 1},
        [],
        None,
    ],
    ids=repr,
)
def test_labels_are_a_list_of_whole_numbers_below_the_number_of_classes(tmp_path: Path, labels: object) -> None:
    message = refusal(official_archive(tmp_path / "archive", members={"data_batch_1": batch_with(labels=labels)}))
    assert message.startswith("data_batch_1: expected ")


def test_a_label_out_of_range_is_named_with_the_range(tmp_path: Path) -> None:
    path = official_archive(tmp_path / "archive", members={"test_batch": batch_with(labels=[0, 1, 2, 0, 1, 7])})
    assert refusal(path) == "test_batch: expected labels from 0 to 2, got 7"


@pytest.mark.parametrize("count", [5, 7])
def test_too_few_or_many_labels_for_the_pixels_are_refused_with_both_counts(tmp_path: Path, count: int) -> None:
    members = {"data_batch_1": batch_with(labels=[0] * count)}
    message = refusal(official_archive(tmp_path / "archive", members=members))
    assert f"expected {count * 3072:,} bytes" in message
    assert f"got {6 * 3072:,}" in message


ROWS: NDArray[np.uint8] = TRAIN.images.reshape(6, -1)


@pytest.mark.parametrize(
    "data",
    [
        ROWS[:, :-1],
        ROWS[:, :1024],
        ROWS.reshape(-1),
        ROWS.reshape(12, -1),
        TRAIN.images,
        ROWS[:0],
        np.asfortranarray(ROWS),
        ROWS.astype(np.int8),
        ROWS.astype(np.uint16),
        ROWS.astype(np.float32),
        ROWS.astype(bool),
        ROWS.astype(object),
        ROWS.tobytes(),
        ROWS.tolist(),
        None,
    ],
    ids=lambda data: f"{getattr(data, 'dtype', type(data).__name__)} {getattr(data, 'shape', '')}",
)
def test_pixels_are_a_c_ordered_array_of_bytes_in_rows_of_3072(tmp_path: Path, data: object) -> None:
    message = refusal(official_archive(tmp_path / "archive", members={"data_batch_1": batch_with(data=data)}))
    assert message.startswith("data_batch_1: expected ")


def test_an_array_with_fewer_bytes_than_its_shape_is_refused(tmp_path: Path) -> None:
    cut = pickled_batch(TRAIN, 4).replace(ROWS.tobytes(), ROWS.tobytes()[:-1])
    cut = cut.replace(b"B" + struct.pack("<I", ROWS.size), b"B" + struct.pack("<I", ROWS.size - 1))
    message = refusal(official_archive(tmp_path / "archive", members={"data_batch_1": unframed(cut)}))
    assert "expected 18,432 bytes" in message
    assert "got 18,431" in message


def unframed(pickled: bytes) -> bytes:
    """Protocol 4 without its first frame, whose length a change has made wrong."""
    assert pickled[2:3] == b"\x95"
    return pickled[:2] + pickled[11:]


@pytest.mark.parametrize(
    "names",
    [
        ["ant"],
        [f"class {number}" for number in range(257)],
        ["ant", "bee", "ant"],
        ["ant", "bee", ""],
        ["ant", "bee", "   "],
        ["ant", "bee", "co\nw"],
        ["ant", "bee", "\x1b[31mcow"],
        ["ant", "bee", "c\u202eow"],
        ["ant", "bee", 3],
        ["ant", "bee", ["cow"]],
        ("ant", "bee", "cow"),
        "abc",
        [],
        None,
    ],
    ids=lambda names: ascii(names)[:30],
)
def test_class_names_are_2_to_256_different_printable_ones(tmp_path: Path, names: object) -> None:
    meta = pickle.dumps({b"label_names": names}, 2)
    message = refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))
    assert message.startswith("batches.meta: expected ")


def test_a_number_too_long_to_print_is_refused(tmp_path: Path) -> None:
    huge = 10**5_000
    bodies = [
        batch_with(labels=huge),
        batch_with(labels=[0, 1, 2, 0, 1, huge]),
        pickle.dumps({b"label_names": huge}, 2),
    ]
    for name, body in zip(("data_batch_1", "data_batch_1", "batches.meta"), bodies, strict=True):
        assert refusal(official_archive(tmp_path / "archive", members={name: body})).startswith(f"{name}: expected ")


@pytest.mark.parametrize("count", [2, 256])
def test_the_fewest_and_the_most_classes_are_read(tmp_path: Path, count: int) -> None:
    classes = [f"class {number}" for number in range(count)]
    train = tiny_batch(count, count)
    archive = read_archive(official_archive(tmp_path / "archive", classes, [train], tiny_batch(2, 2)))
    assert archive.classes == tuple(classes)
    assert archive.train.labels.tolist() == list(range(count))


@pytest.mark.parametrize("content", [[], "text", None, 7, {1: 2}, {("labels",): 2}, {}], ids=repr)
def test_a_member_is_a_dict_with_names_for_keys(tmp_path: Path, content: object) -> None:
    for name in ("batches.meta", "data_batch_1"):
        members = {name: pickle.dumps(content, 2)}
        assert refusal(official_archive(tmp_path / "archive", members=members)).startswith(f"{name}: expected ")


# Archives that are broken, or laid out otherwise


@pytest.mark.parametrize("missing", ["batches.meta", "data_batch_1", "test_batch"])
def test_a_missing_member_is_named(tmp_path: Path, missing: str) -> None:
    assert missing in refusal(official_archive(tmp_path / "archive", members={missing: None}))


@pytest.mark.parametrize(
    "body", [b"", b"not a tar", bytes(10_240), gzip.compress(b"", mtime=0), gzip.compress(b"not a tar", mtime=0)]
)
def test_a_file_that_is_no_tar_is_refused_by_name(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "archive.tar.gz").write_bytes(body)
    assert refusal(tmp_path / "archive.tar.gz").startswith("archive.tar.gz: expected ")


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "archive.tar.gz").startswith("archive.tar.gz: expected ")


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
def test_an_archive_cut_short_anywhere_is_refused(tmp_path: Path, compression: str) -> None:
    members = {
        "batches.meta": pickled_meta(CLASSES),
        "test_batch": pickled_batch(TEST),
        "data_batch_1": pickled_batch(TRAIN),
    }
    whole = write_members(tmp_path / "whole", members, compression).read_bytes()
    for size in range(0, len(whole) * 99 // 100, len(whole) // 100):
        (tmp_path / "archive").write_bytes(whole[:size])
        refusal(tmp_path / "archive")


def test_gzips_own_checksum_counts(tmp_path: Path) -> None:
    stored = gzip.compress(plain_tar(SMALL | {"data_batch_1": python2_batch(TRAIN)}), compresslevel=0)
    pixel = stored.index(TRAIN.images[0].tobytes()[:100])
    changed = bytes([stored[pixel] ^ 1])
    (tmp_path / "archive").write_bytes(stored[:pixel] + changed + stored[pixel + 1 :])
    refusal(tmp_path / "archive")


def test_gzips_end_may_not_be_missing(tmp_path: Path) -> None:
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
