"""Labels, pixels and class names of an archive: invalid ones are refused."""

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from archives import (
    TRAIN,
    refusal,
    training_batch,
)
from numpy.typing import NDArray
from tiny import (
    official_archive,
    pickled_batch,
    tiny_batch,
)

from tasks.core.data.archive import read_archive


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
def test_invalid_labels_are_refused(tmp_path: Path, labels: object) -> None:
    message = refusal(official_archive(tmp_path / "archive", members={"data_batch_1": batch_with(labels=labels)}))
    assert message.startswith("data_batch_1: expected ")


def test_the_error_shows_the_invalid_label_and_the_range(tmp_path: Path) -> None:
    path = official_archive(tmp_path / "archive", members={"test_batch": batch_with(labels=[0, 1, 2, 0, 1, 7])})
    assert refusal(path) == "test_batch: expected labels from 0 to 2, got 7"


@pytest.mark.parametrize("count", [5, 7])
def test_a_label_count_that_does_not_fit_the_pixels_is_refused(tmp_path: Path, count: int) -> None:
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
def test_invalid_pixel_arrays_are_refused(tmp_path: Path, data: object) -> None:
    message = refusal(official_archive(tmp_path / "archive", members={"data_batch_1": batch_with(data=data)}))
    assert message.startswith("data_batch_1: expected ")


def test_an_array_with_fewer_bytes_than_its_shape_is_refused(tmp_path: Path) -> None:
    shortened = pickled_batch(TRAIN, 4).replace(ROWS.tobytes(), ROWS.tobytes()[:-1])
    shortened = shortened.replace(b"B" + struct.pack("<I", ROWS.size), b"B" + struct.pack("<I", ROWS.size - 1))
    message = refusal(official_archive(tmp_path / "archive", members={"data_batch_1": without_frame(shortened)}))
    assert "expected 18,432 bytes" in message
    assert "got 18,431" in message


def without_frame(pickled: bytes) -> bytes:
    """Remove the first frame of protocol 4, whose length is no longer right."""
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
def test_invalid_class_names_are_refused(tmp_path: Path, names: object) -> None:
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
def test_the_smallest_and_largest_number_of_classes_are_read(tmp_path: Path, count: int) -> None:
    classes = [f"class {number}" for number in range(count)]
    train = tiny_batch(count, count)
    archive = read_archive(official_archive(tmp_path / "archive", classes, [train], tiny_batch(2, 2)))
    assert archive.classes == tuple(classes)
    assert training_batch(archive).labels.tolist() == list(range(count))


@pytest.mark.parametrize("content", [[], "text", None, 7, {1: 2}, {("labels",): 2}, {}], ids=repr)
def test_a_member_that_is_no_dict_with_string_keys_is_refused(tmp_path: Path, content: object) -> None:
    for name in ("batches.meta", "data_batch_1"):
        members = {name: pickle.dumps(content, 2)}
        assert refusal(official_archive(tmp_path / "archive", members=members)).startswith(f"{name}: expected ")
