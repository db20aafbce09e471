"""Archives for tests: handwritten pickles of Python 2, and assertions on how an archive is read or refused."""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny import CLASSES, add_member, pickled_batch, tiny_batch

from tasks.core.data.archive import Archive, BadArchive, Batch, read_archive

TRAIN, TEST = tiny_batch(), tiny_batch(3, seed=1)
FOLDER = "cifar-10-batches-py"


def refusal(path: Path) -> str:
    """Assert that an archive is refused and return the message, which is one printable line."""
    with pytest.raises(BadArchive) as caught:
        read_archive(path)
    message = str(caught.value)
    assert message.isprintable()
    assert caught.value.exit_code == 2
    return message


def training_batch(archive: Archive) -> Batch:
    """All training batches of an archive, concatenated."""
    batches = archive.train_batches
    return Batch(np.concatenate([one.images for one in batches]), np.concatenate([one.labels for one in batches]))


def assert_holds(archive: Archive, train: Batch = TRAIN, test: Batch = TEST) -> None:
    for batch, expected in ((training_batch(archive), train), (archive.test, test)):
        assert batch.images.dtype == batch.labels.dtype == np.uint8
        assert np.array_equal(batch.images, expected.images)
        assert np.array_equal(batch.labels, expected.labels)


# Pickles of Python 2, as in the official files


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
    """`extra` is the pickle of an additional value, stored under the key `x`."""
    names = b"".join(python2_string(name.encode()) + b"q" + bytes([5 + i]) for i, name in enumerate(classes))
    more = python2_string(b"x") + extra if extra else b""
    return b"\x80\x02}q\x01(" + python2_string(b"label_names") + b"q\x03]q\x04(" + names + b"e" + more + b"u."


def python2_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


# The smallest archive


def plain_tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, body in members.items():
            add_member(tar, name, body)
    return buffer.getvalue()


ONE = tiny_batch(1)
SMALL = {
    "batches.meta": python2_meta(CLASSES),
    "data_batch_1": python2_batch(ONE),
    "test_batch": pickled_batch(ONE, 4),
}
