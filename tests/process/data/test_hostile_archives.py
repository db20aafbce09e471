"""Archives made to crash or hang the reader, read in a separate process: they are refused."""

import pickle
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tiny import add_member, official_archive

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
    """Read an archive in a process with 5 s of CPU time; returns exit code and output."""
    command = [sys.executable, "-c", READ_IN_A_PROCESS, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout.strip()


def test_a_deeply_nested_key_does_not_crash_the_process(tmp_path: Path) -> None:
    meta = b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."
    path = official_archive(tmp_path / "archive", members={"batches.meta": meta})
    assert read_in_a_process(path) == (0, "refused")


def test_a_small_pickle_of_a_huge_value_is_refused_fast(tmp_path: Path) -> None:
    labels: list[object] = ["x"]
    for _ in range(20):
        labels = [labels] * 10
    batch = pickle.dumps({"labels": labels, "data": None}, protocol=2)
    assert len(batch) < 1_000
    path = official_archive(tmp_path / "archive", members={"data_batch_1": batch})
    assert read_in_a_process(path) == (0, "refused")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [2**40, 2**62, 2**63])
def test_a_member_name_of_absurd_length_is_refused(tmp_path: Path, kind: bytes, size: int) -> None:
    (tmp_path / "archive").write_bytes(header(kind, size) + bytes(1_024))
    assert read_in_a_process(tmp_path / "archive") == (0, "refused")


def test_endless_long_name_headers_are_refused(tmp_path: Path) -> None:
    named = header(tarfile.GNUTYPE_LONGNAME, 5) + b"name".ljust(512, b"\0")
    (tmp_path / "archive").write_bytes(3_000 * named + header(tarfile.REGTYPE, 0) + bytes(1_024))
    assert read_in_a_process(tmp_path / "archive") == (0, "refused")


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_a_member_of_negative_size_does_not_loop(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w", format=tarfile.GNU_FORMAT) as tar:
        add_member(tar, "readme.html", b"<p>")
        info = tarfile.TarInfo("again.html")
        info.size = -512  # the header would follow itself
        tar.addfile(info)
    assert read_in_a_process(tmp_path / "archive") == (0, "refused")
