"""Archives with random damage or excessive memory claims: read or refused, never another error."""

import pickletools
import random
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import ONE, RECONSTRUCT, SMALL, plain_tar, python2_batch, python2_meta
from tiny import (
    CLASSES,
    official_archive,
)

from tasks.core.data.archive import BadArchive, read_archive, unpickle


@pytest.mark.parametrize(
    "claim", [b"NN0r\xff\xff\xff\x00", b"N\x96" + (1 << 28).to_bytes(8, "little") + b"x"], ids=["memo", "bytearray"]
)
def test_a_small_pickle_cannot_claim_much_memory(tmp_path: Path, claim: bytes) -> None:
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


# Damage at every position


@contextmanager
def memory_limit(more_bytes: int = 2 << 30) -> Iterator[None]:
    """Limit the process to its current memory plus `more_bytes`; no limit on systems without /proc."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    used = int(pages.read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(path: Path) -> str:
    try:
        read_archive(path)
    except BadArchive as error:
        return "refused" if str(error).isprintable() else f"refused with an unprintable message: {error}"
    return "read"


def damaged_variants(pickled: bytes, pixels: bytes) -> Iterator[bytes]:
    """A pickle with each bit flipped, each byte set to 0 or 255 or removed, and truncated at each byte."""
    start = pickled.index(pixels) if pixels else len(pickled)
    positions = [*range(min(start + 4, len(pickled))), *range(start + max(0, len(pixels) - 4), len(pickled))]
    for at in positions:
        before, byte, after = pickled[:at], pickled[at], pickled[at + 1 :]
        yield before
        yield before + after
        for value in {byte ^ (1 << bit) for bit in range(8)} | {0, 255} - {byte}:
            yield before + bytes([value]) + after


@pytest.mark.parametrize("name", SMALL)
def test_a_pickle_damaged_at_any_position_is_read_or_refused(tmp_path: Path, name: str) -> None:
    pixels = b"" if name == "batches.meta" else ONE.images.tobytes()
    outcomes = set()
    with memory_limit():
        for body in damaged_variants(SMALL[name], pixels):
            (tmp_path / "archive").write_bytes(plain_tar(SMALL | {name: body}))
            outcomes.add(outcome(tmp_path / "archive"))
    assert outcomes == {"read", "refused"}


def test_pickles_of_random_opcodes_are_read_or_refused() -> None:
    rng = random.Random(1)
    opcodes = [opcode.code.encode("latin1") for opcode in pickletools.opcodes if opcode.name != "STOP"]
    pieces = [*opcodes, RECONSTRUCT, b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"U\x01a"]
    pieces += [b"K\x01", b"q\x01", b"h\x01", b"}", b"]", b")", b"(", b"N"] * 6
    with memory_limit():
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
            if not checksum <= position < kind:  # keep the checksum valid
                changed[checksum:kind] = b" " * 8
                changed[checksum:kind] = b"%06o\0 " % sum(changed[:512])
            (tmp_path / "archive").write_bytes(changed)
            outcomes.add(outcome(tmp_path / "archive"))
    assert outcomes == {"read", "refused"}


def test_unpickled_arrays_contain_bytes_and_no_numpy_objects() -> None:
    content: dict[str, Any] = unpickle("data_batch_1", python2_batch(ONE))
    assert not isinstance(content["data"], np.ndarray)
    assert content["data"].pixels == ONE.images.tobytes()
