"""Interrupted downloads: what is resumed, and what starts again."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from downloads import OTHER, PAYLOAD, SHA256, Serve, get, one_line, part_of

from tasks.core.data.downloader import Limits, TransferBroken

DOWNLOAD_SCRIPT = """
import sys
from pathlib import Path
from tasks.core.data.downloader import download
url, target, sha256 = sys.argv[1:]
download([url], Path(target), sha256)
"""


def test_after_an_interruption_the_next_call_resumes_by_range(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve(breaks_after=150_000)
    with pytest.raises(TransferBroken, match=r"0\.1 MB kept|0\.2 MB kept") as error:
        get(target, mirror.url)
    assert mirror.host in one_line(error)
    assert part_of(target).read_bytes() == PAYLOAD[:150_000]

    mirror.breaks_after = None
    get(target, mirror.url)

    assert mirror.ranges() == [None, "bytes=150000-"]
    assert target.read_bytes() == PAYLOAD
    assert any("resuming at 0.1 MB" in line or "resuming at 0.2 MB" in line for line in log)


def test_another_mirror_completes_a_partial_download(serve: Serve, target: Path, log: list[str]) -> None:
    broken, whole = serve(breaks_after=100_000), serve()

    get(target, broken.url, whole.url)

    assert whole.ranges() == ["bytes=100000-"]
    assert target.read_bytes() == PAYLOAD
    assert any(line.startswith(f"download: {broken.host} failed: ") and line.endswith("0.1 MB kept") for line in log)


def test_a_response_that_ends_early_is_a_broken_transfer(serve: Serve, target: Path) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(PAYLOAD[:100_000])

    with pytest.raises(TransferBroken, match="ended after 150,000 of 400,000 bytes"):
        get(target, serve(caps_range_at=50_000).url)

    assert part_of(target).read_bytes() == PAYLOAD[:150_000]


def test_a_stalled_mirror_is_replaced_by_the_next(serve: Serve, target: Path, log: list[str]) -> None:
    stalled, whole = serve(stalls_after=100_000), serve()

    get(target, stalled.url, whole.url, limits=Limits(read_timeout_s=0.5))

    assert whole.ranges() == ["bytes=100000-"]
    assert f"download: {stalled.host} failed: stopped sending data; 0.1 MB kept" in log


def test_the_partial_file_survives_a_killed_process(serve: Serve, target: Path) -> None:
    mirror = serve(bytes_per_s=200_000)
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD_SCRIPT, mirror.url, str(target), SHA256])
    try:
        deadline = time.monotonic() + 30
        while not (part_of(target).exists() and part_of(target).stat().st_size > 50_000):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = part_of(target).stat().st_size
    assert not target.exists()

    mirror.bytes_per_s = None
    get(target, mirror.url)

    assert mirror.ranges() == [None, f"bytes={kept}-"]
    assert target.read_bytes() == PAYLOAD


def test_a_complete_partial_file_needs_no_more_bytes(serve: Serve, target: Path) -> None:
    mirror = serve()
    target.parent.mkdir()
    part_of(target).write_bytes(PAYLOAD)

    get(target, mirror.url)

    assert mirror.ranges() == ["bytes=400000-"]
    assert target.read_bytes() == PAYLOAD


@pytest.mark.parametrize("kept", [OTHER, PAYLOAD + b"too long"])
def test_a_partial_file_past_the_end_is_downloaded_again(serve: Serve, target: Path, kept: bytes) -> None:
    mirror = serve()
    target.parent.mkdir()
    part_of(target).write_bytes(kept)

    get(target, mirror.url)

    assert mirror.ranges() == [f"bytes={len(kept)}-", None]
    assert target.read_bytes() == PAYLOAD


@pytest.mark.parametrize("behaviour", [{"ignores_range": True}, {"shifts_range_by": 7}])
def test_a_server_that_ignores_the_range_restarts_the_download(
    serve: Serve, target: Path, behaviour: dict[str, object]
) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(PAYLOAD[:1000])

    get(target, serve(**behaviour).url)

    assert target.read_bytes() == PAYLOAD


# Resuming without a checksum


def test_without_a_checksum_an_unchanged_file_is_resumed(serve: Serve, target: Path) -> None:
    mirror = serve(breaks_after=100_000, etag='"one"')
    with pytest.raises(TransferBroken):
        get(target, mirror.url, sha256=None)

    mirror.breaks_after = None
    get(target, mirror.url, sha256=None)

    assert mirror.ranges() == [None, "bytes=100000-"]
    assert mirror.gets()[1].headers["If-Range"] == '"one"'
    assert target.read_bytes() == PAYLOAD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("validator", ["etag", "last_modified"])
def test_without_a_checksum_a_changed_file_restarts(
    serve: Serve, target: Path, validator: str, ignores_if_range: bool
) -> None:
    mirror = serve(breaks_after=100_000, ignores_if_range=ignores_if_range)
    setattr(mirror, validator, '"one"' if validator == "etag" else "Mon, 01 Jun 2026 10:00:00 GMT")
    with pytest.raises(TransferBroken):
        get(target, mirror.url, sha256=None)

    mirror.breaks_after, mirror.payload = None, OTHER
    setattr(mirror, validator, '"two"' if validator == "etag" else "Tue, 02 Jun 2026 10:00:00 GMT")
    get(target, mirror.url, sha256=None)

    assert target.read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_checksum_and_strong_validator_nothing_is_resumed(serve: Serve, target: Path, etag: str | None) -> None:
    mirror = serve(breaks_after=100_000, etag=etag)
    with pytest.raises(TransferBroken):
        get(target, mirror.url, sha256=None)

    mirror.breaks_after = None
    get(target, mirror.url, sha256=None)

    assert mirror.ranges() == [None, None]
    assert target.read_bytes() == PAYLOAD


def test_without_a_checksum_another_url_restarts(serve: Serve, target: Path) -> None:
    with pytest.raises(TransferBroken):
        get(target, serve(breaks_after=100_000, etag='"one"').url, sha256=None)

    other = serve(OTHER, etag='"one"')
    get(target, other.url, sha256=None)

    assert other.ranges() == [None]
    assert target.read_bytes() == OTHER


def test_a_partial_file_of_a_pinned_download_needs_the_checksum(serve: Serve, target: Path) -> None:
    mirror, other = serve(breaks_after=100_000, etag='"one"'), serve(OTHER, breaks_after=100_000)
    with pytest.raises(TransferBroken):
        get(target, mirror.url, sha256=None)
    with pytest.raises(TransferBroken):
        get(target, other.url, sha256=SHA256)

    mirror.breaks_after = None
    get(target, mirror.url, sha256=None)

    assert mirror.ranges()[-1] is None
    assert target.read_bytes() == PAYLOAD
