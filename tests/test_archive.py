"""Reading archives: the official layout as Python 2 and 3 wrote it, and everything that must be refused."""

import gzip
import io
import os
import pickle
import pickletools
import random
import resource
import struct
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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

from tasks.core.archive import CIFAR10_LABEL_NAMES, TUTORIAL_CLASSES, Archive, BadArchive, Batch, read_archive, unpickle

TRAIN, TEST = tiny_batch(), tiny_batch(3, seed=1)
FOLDER = "cifar-10-batches-py"


def refusal(path: Path) -> str:
    """The message with which an archive is refused: always one printable line."""
    with pytest.raises(BadArchive) as caught:
        read_archive(path)
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.exit_code == 2
    return message


def assert_holds(archive: Archive, train: Batch = TRAIN, test: Batch = TEST) -> None:
    for found, meant in ((archive.train, train), (archive.test, test)):
        assert found.images.dtype == found.labels.dtype == np.uint8
        assert np.array_equal(found.images, meant.images)
        assert np.array_equal(found.labels, meant.labels)


# Python 2's pickles, opcode by opcode as in the official files


def python2_string(text: bytes) -> bytes:
    return b"U" + bytes([len(text)]) + text


def python2_array(rows: int, pixels: bytes, numpy: bytes = b"numpy.core") -> bytes:
    return (
        b"c" + numpy + b".multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\t"
        b"(K\x01M" + struct.pack("<H", rows) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    )


def python2_batch(batch: Batch) -> bytes:
    labels = b"".join(b"K" + bytes([label]) for label in batch.labels)
    names = b"".join(python2_string(b"ant_%d.png" % number) for number in range(len(batch.labels)))
    entries = [
        python2_string(b"batch_label") + b"q\x02" + python2_string(b"training batch 1 of 5") + b"q\x03",
        python2_string(b"labels") + b"q\x04]q\x05(" + labels + b"e",
        python2_string(b"data") + b"q\x06" + python2_array(len(batch.labels), batch.images.tobytes()),
        python2_string(b"filenames") + b"q\x0c]q\x0d(" + names + b"e",
    ]
    return b"\x80\x02}q\x01(" + b"".join(entries) + b"u."


def python2_meta(classes: tuple[str, ...], extra: bytes = b"") -> bytes:
    """`extra` is the pickle of one more value, under the key `x`."""
    names = b"".join(python2_string(name.encode()) + b"q" + bytes([5 + i]) for i, name in enumerate(classes))
    more = python2_string(b"x") + extra if extra else b""
    return b"\x80\x02}q\x01(" + python2_string(b"label_names") + b"q\x03]q\x04(" + names + b"e" + more + b"u."


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


# Pickles that want more than to be data


def python2_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def calls(tmp_path: Path) -> dict[str, bytes]:
    """Pickles of one value each whose making would leave a file `ran`, in every way that pickle knows of calling."""
    ran = str(tmp_path / "ran")
    touch, make = python2_text(f"touch {ran}"), python2_text(f"open({ran!r}, 'w').close()")
    return {
        "os.system": b"cos\nsystem\n" + touch + b"\x85R",
        "posix.system": b"cposix\nsystem\n" + touch + b"\x85R",
        "subprocess": b"csubprocess\ncall\n](" + python2_text("touch") + python2_text(ran) + b"e\x85R",
        "eval": b"cbuiltins\neval\n" + make + b"\x85R",
        "exec": b"cbuiltins\nexec\n" + make + b"\x85R",
        "Python 2's eval": b"c__builtin__\neval\n" + make + b"\x85R",
        "by stack": python2_text("os") + python2_text("system") + b"\x93" + touch + b"\x85R",
        "by INST": b"(" + touch + b"ios\nsystem\n",
        "by OBJ": b"(cos\nsystem\n" + touch + b"o",
        "by NEWOBJ": b"csubprocess\nPopen\n" + python2_text(f"touch {ran}") + b"\x85\x81",
        "through numpy": b"cnumpy.testing._private.utils\nrunstring\n" + make + b"}\x86R",
        "through numpy's own os": b"cnumpy.core.multiarray\nos.system\n" + touch + b"\x85R",
        "by a dotted name": python2_text("numpy") + python2_text("dtype.__init__") + b"\x93" + touch + b"\x85R",
        "without a call": b"cos\nsystem\n",
        "by getattr": b"cbuiltins\ngetattr\ncnumpy\nndarray\n" + python2_text("__init__") + b"\x86R",
        "by a module's attribute": b"cnumpy\nos\n",
        "an import": b"cantigravity\nnothing\n",
    }


@pytest.mark.parametrize("way", sorted(calls(Path())))
def test_a_pickle_that_calls_anything_is_refused_and_nothing_runs(tmp_path: Path, way: str) -> None:
    meta = python2_meta(CLASSES, extra=calls(tmp_path)[way])
    message = refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))
    assert message.startswith("batches.meta: expected a pickle of plain data")
    assert not (tmp_path / "ran").exists()


class Payload:
    """What `__reduce__` makes of an object: a call when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_payload_by_reduce_is_refused_in_every_protocol_and_nothing_runs(tmp_path: Path, protocol: int) -> None:
    for payload in (Payload(os.mkdir, str(tmp_path / "ran")), Payload(exec, f"open({str(tmp_path / 'ran')!r}, 'w')")):
        batch = pickle.dumps({b"labels": [0], b"data": payload}, protocol)
        refusal(official_archive(tmp_path / "archive", members={"data_batch_1": batch}))
        assert not (tmp_path / "ran").exists()


def test_what_a_refused_pickle_asked_for_is_named(tmp_path: Path) -> None:
    meta = python2_meta(CLASSES, extra=b"cos\nsystem\n")
    assert "os.system" in refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))


def test_a_refused_name_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    meta = python2_meta(CLASSES, extra=python2_text("o\x1b[2Js") + python2_text("sys\ntem") + b"\x93")
    refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))  # asserts one printable line


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
STATE = b"}" + python2_text("pixels") + python2_text("x") + b"s"

STRAY = {
    "a persistent id": b"Psomething\n",
    "a persistent id from the stack": b"K\x01Q",
    "an extension": b"\x82\x01",
    "an out-of-band buffer": b"\x97",
    "attributes for numpy's function": RECONSTRUCT + STATE + b"b",
    "slots for numpy's function": RECONSTRUCT + b"N" + STATE + b"\x86b",
    "another class for numpy's function": RECONSTRUCT + b"N}" + python2_text("__class__") + b"cnumpy\ndtype\ns\x86b",
    "attributes for the array class": b"cnumpy\nndarray\n" + STATE + b"b",
    "slots for the array class": b"cnumpy\nndarray\nN" + STATE + b"\x86b",
    "attributes for the dtype class": b"cnumpy\ndtype\n" + STATE + b"b",
    "attributes for codecs.encode": b"c_codecs\nencode\n" + STATE + b"b",
    "attributes for an array": b"cnumpy\nndarray\n)\x81" + STATE + b"b",
    "attributes for a list": b"]" + STATE + b"b",
    "another codec": b"c_codecs\nencode\n" + python2_text("x") + python2_text("rot13") + b"\x86R",
    "a codec of bytes": b"c_codecs\nencode\n" + b"U\x01x" + python2_text("zlib") + b"\x86R",
    "a dtype of a number": b"cnumpy\ndtype\nK\x01\x85R",
    "an array with arguments": b"cnumpy\nndarray\nK\x01\x85R",
    "an array that is told how long it is": b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x81",
    "an item of a list": b"]K\x01K\x02s",
    "a key that has no hash": b"}]K\x02s",
    "a mark in nothing": b"(",
    "an empty stack": b"0000",
    "a memo that is not there": b"h\xf0",
    "an opcode that is none": b"\xff",
    "a newer protocol": b"\x80\x63N",
    "a number of too many digits": b"L" + b"9" * 5_000 + b"L\n",
    "a number that is none": b"Ione\n",
    "text that is none": b"X\x02\x00\x00\x00\xff\xff",
    "a string longer than the file": b"T\xff\xff\xff\x7fx",
    "a string of negative length": b"T\xff\xff\xff\xffx",
    "bytes longer than memory": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx",
    "a bytearray longer than memory": b"\x96\xff\xff\xff\xff\xff\xff\xff\x7fx",
}


@pytest.mark.parametrize("way", STRAY)
def test_other_nonsense_is_refused_and_leaves_no_trace(tmp_path: Path, way: str) -> None:
    meta = python2_meta(CLASSES, extra=STRAY[way])
    refusal(official_archive(tmp_path / "archive", members={"batches.meta": meta}))
    assert_holds(read_archive(official_archive(tmp_path / "archive")))


def test_nesting_too_deep_to_print_is_refused(tmp_path: Path) -> None:
    lists = b"]" * 50_000 + b"a" * 49_999
    deep = {
        "batches.meta": b"\x80\x02}" + python2_string(b"label_names") + lists + b"s.",
        "data_batch_1": b"\x80\x02" + lists + b".",
        "test_batch": python2_batch(TEST).replace(b"M\x03\x00M\x00\x0c\x86", b")" + b"\x85" * 50_000),
    }
    for name, body in deep.items():
        assert refusal(official_archive(tmp_path / "archive", members={name: body})).startswith(f"{name}: ")


READ_IN_A_PROCESS = """
import resource, sys
from pathlib import Path
from tasks.core.archive import BadArchive, read_archive
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
try:
    read_archive(Path(sys.argv[1]))
except BadArchive:
    print("refused")
"""


def read_in_a_process(path: Path) -> tuple[int, str]:
    """Exit code and output of a process of its own, which may crash or go on for ever (5 s of CPU time)."""
    command = [sys.executable, "-c", READ_IN_A_PROCESS, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


def test_a_deeply_nested_key_does_not_crash_the_process(tmp_path: Path) -> None:
    meta = b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."
    path = official_archive(tmp_path / "archive", members={"batches.meta": meta})
    assert read_in_a_process(path) == (0, "refused")


def test_a_member_of_negative_size_is_not_read_for_ever(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.GNU_FORMAT) as tar:
        add_member(tar, "readme.html", b"<p>")
        info = tarfile.TarInfo("again.html")
        info.size = -512  # what follows the header is the header again
        tar.addfile(info)
    assert read_in_a_process(tmp_path / "archive") == (0, "refused")


@pytest.mark.parametrize(
    "claim", [b"NN0r\xff\xff\xff\x00", b"N\x96" + (1 << 28).to_bytes(8, "little") + b"x"], ids=["memo", "bytearray"]
)
def test_a_few_bytes_cannot_claim_a_lot_of_memory(tmp_path: Path, claim: bytes) -> None:
    path = official_archive(tmp_path / "archive", members={"batches.meta": python2_meta(CLASSES, extra=claim)})
    tracemalloc.start()
    try:
        read_archive(path)
    except BadArchive:
        pass
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 20_000_000


# Damage at every position: read or refused, and never anything else


@contextmanager
def little_memory(more_bytes: int = 2 << 30) -> Iterator[None]:
    """Let nothing take much more memory than is taken now, where the system can tell how much that is."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    taken = int(pages.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(path: Path) -> str:
    try:
        read_archive(path)
    except BadArchive as error:
        return "refused" if str(error).isprintable() else f"refused in other than one line: {error}"
    return "read"


def plain_tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in members.items():
            add_member(tar, name, body)
    return buffer.getvalue()


def damaged(pickled: bytes, pixels: bytes) -> Iterator[bytes]:
    """A pickle with each bit flipped, each byte at either end of its range or gone, and cut short at each of them."""
    start = pickled.index(pixels) if pixels else len(pickled)
    positions = [*range(min(start + 4, len(pickled))), *range(start + max(0, len(pixels) - 4), len(pickled))]
    for at in positions:
        before, byte, after = pickled[:at], pickled[at], pickled[at + 1 :]
        yield before
        yield before + after
        for value in {byte ^ (1 << bit) for bit in range(8)} | {0, 255} - {byte}:
            yield before + bytes([value]) + after


ONE = tiny_batch(1)
SMALL = {
    "batches.meta": python2_meta(CLASSES),
    "data_batch_1": python2_batch(ONE),
    "test_batch": pickled_batch(ONE, 4),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_pickle_damaged_at_any_position_is_read_or_refused(tmp_path: Path, name: str) -> None:
    pixels = b"" if name == "batches.meta" else ONE.images.tobytes()
    outcomes = set()
    with little_memory():
        for body in damaged(SMALL[name], pixels):
            (tmp_path / "archive").write_bytes(plain_tar(SMALL | {name: body}))
            outcomes.add(outcome(tmp_path / "archive"))
    assert outcomes == {"read", "refused"}


def test_pickles_of_random_opcodes_are_read_or_refused() -> None:
    rng = random.Random(1)
    opcodes = [opcode.code.encode("latin1") for opcode in pickletools.opcodes if opcode.name != "STOP"]
    pieces = [*opcodes, RECONSTRUCT, b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"U\x01a"]
    pieces += [b"K\x01", b"q\x01", b"h\x01", b"}", b"]", b")", b"(", b"N"] * 6
    with little_memory():
        for _ in range(20_000):
            body = b"\x80\x02" + b"".join(rng.choices(pieces, k=rng.randrange(1, 20))) + b"."
            try:
                content = unpickle("batches.meta", body)
            except BadArchive:
                continue
            assert all(isinstance(key, str) for key in content)


def test_a_damaged_tar_header_is_read_or_refused(tmp_path: Path) -> None:
    whole = plain_tar(SMALL)
    [name, mode, checksum, kind, magic] = [0, 100, 148, 156, 257]
    outcomes = set()
    for position in [name, *range(mode, magic + 8), *range(345, 350)]:
        for value in b"\x00\x80\xff17-xKLSg":
            changed = bytearray(whole)
            changed[position] = value
            if not checksum <= position < kind:  # which must be right for the rest to count
                changed[checksum:kind] = b" " * 8
                changed[checksum:kind] = b"%06o\0 " % sum(changed[:512])
            (tmp_path / "archive").write_bytes(changed)
            outcomes.add(outcome(tmp_path / "archive"))
    assert outcomes == {"read", "refused"}


def test_stand_ins_hold_the_bytes_and_nothing_of_numpy() -> None:
    content: dict[str, Any] = unpickle("data_batch_1", python2_batch(ONE))
    assert not isinstance(content["data"], np.ndarray)
    assert content["data"].pixels == ONE.images.tobytes()
