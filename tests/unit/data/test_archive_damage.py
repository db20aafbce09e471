"""Archives damaged anywhere, or made to crash, hang or fill memory: read or refused, and never anything else."""

import pickle
import pickletools
import random
import resource
import subprocess
import sys
import tarfile
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
    add_member,
    official_archive,
)

from tasks.core.data.archive import BadArchive, read_archive, unpickle

READ_IN_A_PROCESS = """
import resource, sys
from pathlib import Path
from tasks.core.data.archive import BadArchive, read_archive
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


def test_a_few_bytes_cannot_stand_for_a_value_that_takes_for_ever_to_be_shown(tmp_path: Path) -> None:
    labels: list[object] = ["x"]
    for _ in range(20):
        labels = [labels] * 10
    batch = pickle.dumps({"labels": labels, "data": None}, protocol=2)
    assert len(batch) < 1_000
    path = official_archive(tmp_path / "archive", members={"data_batch_1": batch})
    assert read_in_a_process(path) == (0, "refused")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [2**40, 2**62, 2**63])
def test_a_name_of_absurd_length_is_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    (tmp_path / "archive").write_bytes(header(kind, size) + bytes(1_024))
    assert read_in_a_process(tmp_path / "archive") == (0, "refused")


def test_names_for_names_without_end_are_refused(tmp_path: Path) -> None:
    named = header(tarfile.GNUTYPE_LONGNAME, 5) + b"name".ljust(512, b"\0")
    (tmp_path / "archive").write_bytes(3_000 * named + header(tarfile.REGTYPE, 0) + bytes(1_024))
    assert read_in_a_process(tmp_path / "archive") == (0, "refused")


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


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


# Damage at every position


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
