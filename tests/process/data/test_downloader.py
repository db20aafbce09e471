"""Fetching over HTTP: every test runs against a real server on loopback."""

import hashlib
import logging
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from loopback import Mirror, closed_url, make_certificate, serving, silent_url

from tasks.core.data.downloader import DEFAULT_LIMITS, Limits, SourceUnavailable, TransferBroken, fetch
from tasks.core.errors import EnvironmentFailure, InputError

PAYLOAD = random.Random(1).randbytes(400_000)
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()
OTHER = random.Random(2).randbytes(400_000)
IMPATIENT = Limits(slow_window_s=0.3, slow_bytes_per_s=100_000)
CRAWL = 20_000  # bytes/s

DOWNLOAD = """
import sys
from pathlib import Path
from tasks.core.data.downloader import fetch
url, target, sha256 = sys.argv[1:]
fetch([url], Path(target), sha256, print)
"""

Serve = Callable[..., Mirror]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server for a mirror; all of them end with the test."""
    with ExitStack() as stack:

        def start(payload: bytes = PAYLOAD, certificate: Path | None = None, **ways: object) -> Mirror:
            return stack.enter_context(serving(Mirror(payload, **ways), certificate))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "work" / "archive.tar.gz"


def get(target: Path, log: list[str], *urls: str, sha256: str | None = SHA256, limits: Limits = DEFAULT_LIMITS) -> str:
    return fetch(urls, target, sha256, log.append, limits)


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def format_validation_error(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_file_arrives_whole_and_leaves_nothing_beside_it(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve()

    assert get(target, log, mirror.url) == SHA256

    assert target.read_bytes() == PAYLOAD
    assert list(target.parent.iterdir()) == [target]
    assert log[0] == f"archive.tar.gz: 0.4 MB from {mirror.host}"
    assert "0.4 MB complete; received 0.4 MB in " in log[-1]
    assert log[-1].endswith(" MB/s")


def test_without_a_checksum_the_digest_of_what_came_is_returned(serve: Serve, target: Path, log: list[str]) -> None:
    assert get(target, log, serve().url, sha256=None) == SHA256


def test_a_file_of_unknown_length_arrives_whole(serve: Serve, target: Path, log: list[str]) -> None:
    get(target, log, serve(hides_length=True).url)

    assert target.read_bytes() == PAYLOAD
    assert "unknown size" in log[0]


def test_an_archive_declared_as_encoded_is_kept_as_it_is(serve: Serve, target: Path, log: list[str]) -> None:
    assert get(target, log, serve(content_encoding="gzip").url) == SHA256


def test_an_https_mirror_works_and_an_untrusted_one_is_named_as_such(
    serve: Serve, target: Path, log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    mirror = serve(certificate=certificate)

    with pytest.raises(SourceUnavailable, match=f"{mirror.host}: self.signed certificate\\)"):
        get(target, log, mirror.url)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(target, log, mirror.url) == SHA256


def test_a_proxy_of_the_environment_is_used(
    serve: Serve, target: Path, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve()
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")

    get(target, log, "http://mirror.invalid/archive.tar.gz")

    assert proxy.gets()[0].path == "http://mirror.invalid/archive.tar.gz"


# Breaks and resuming


def test_after_a_break_the_next_call_goes_on_by_range(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve(breaks_after=150_000)
    with pytest.raises(TransferBroken, match=r"0\.1 MB kept|0\.2 MB kept") as error:
        get(target, log, mirror.url)
    assert mirror.host in format_validation_error(error)
    assert part_of(target).read_bytes() == PAYLOAD[:150_000]

    mirror.breaks_after = None
    get(target, log, mirror.url)

    assert mirror.ranges() == [None, "bytes=150000-"]
    assert target.read_bytes() == PAYLOAD
    assert any("going on at 0.1 MB" in line or "going on at 0.2 MB" in line for line in log)


def test_another_mirror_completes_what_a_broken_one_began(serve: Serve, target: Path, log: list[str]) -> None:
    broken, whole = serve(breaks_after=100_000), serve()

    get(target, log, broken.url, whole.url)

    assert whole.ranges() == ["bytes=100000-"]
    assert target.read_bytes() == PAYLOAD
    assert any(line.startswith(f"{broken.host}: ") and line.endswith("0.1 MB kept") for line in log)


def test_an_answer_that_ends_early_is_a_broken_transfer(serve: Serve, target: Path, log: list[str]) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(PAYLOAD[:100_000])

    with pytest.raises(TransferBroken, match="ended after 150,000 of 400,000 bytes"):
        get(target, log, serve(caps_range_at=50_000).url)

    assert part_of(target).read_bytes() == PAYLOAD[:150_000]


def test_a_mirror_that_stalls_is_left_for_the_next(serve: Serve, target: Path, log: list[str]) -> None:
    stalled, whole = serve(stalls_after=100_000), serve()

    get(target, log, stalled.url, whole.url, limits=Limits(read_timeout_s=0.5))

    assert whole.ranges() == ["bytes=100000-"]
    assert f"{stalled.host}: went silent; 0.1 MB kept" in log


def test_the_partial_file_survives_a_killed_process(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve(bytes_per_s=200_000)
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, mirror.url, str(target), SHA256])
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
    get(target, log, mirror.url)

    assert mirror.ranges() == [None, f"bytes={kept}-"]
    assert target.read_bytes() == PAYLOAD


def test_a_partial_file_that_was_complete_already_needs_no_more_bytes(
    serve: Serve, target: Path, log: list[str]
) -> None:
    mirror = serve()
    target.parent.mkdir()
    part_of(target).write_bytes(PAYLOAD)

    get(target, log, mirror.url)

    assert mirror.ranges() == ["bytes=400000-"]
    assert target.read_bytes() == PAYLOAD


@pytest.mark.parametrize("kept", [OTHER, PAYLOAD + b"too long"])
def test_a_partial_file_past_the_end_is_dropped_for_a_fresh_start(
    serve: Serve, target: Path, log: list[str], kept: bytes
) -> None:
    mirror = serve()
    target.parent.mkdir()
    part_of(target).write_bytes(kept)

    get(target, log, mirror.url)

    assert mirror.ranges() == [f"bytes={len(kept)}-", None]
    assert target.read_bytes() == PAYLOAD


@pytest.mark.parametrize("ways", [{"ignores_range": True}, {"shifts_range_by": 7}])
def test_a_server_that_does_not_go_on_where_asked_starts_afresh(
    serve: Serve, target: Path, log: list[str], ways: dict[str, object]
) -> None:
    target.parent.mkdir()
    part_of(target).write_bytes(PAYLOAD[:1000])

    get(target, log, serve(**ways).url)

    assert target.read_bytes() == PAYLOAD


# Resuming without a checksum


def test_without_a_checksum_the_same_version_is_resumed(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve(breaks_after=100_000, etag='"one"')
    with pytest.raises(TransferBroken):
        get(target, log, mirror.url, sha256=None)

    mirror.breaks_after = None
    get(target, log, mirror.url, sha256=None)

    assert mirror.ranges() == [None, "bytes=100000-"]
    assert mirror.gets()[1].headers["If-Range"] == '"one"'
    assert target.read_bytes() == PAYLOAD
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("ignores_if_range", [False, True])
@pytest.mark.parametrize("validator", ["etag", "last_modified"])
def test_without_a_checksum_a_changed_file_starts_afresh(
    serve: Serve, target: Path, log: list[str], validator: str, ignores_if_range: bool
) -> None:
    mirror = serve(breaks_after=100_000, ignores_if_range=ignores_if_range)
    setattr(mirror, validator, '"one"' if validator == "etag" else "Mon, 01 Jun 2026 10:00:00 GMT")
    with pytest.raises(TransferBroken):
        get(target, log, mirror.url, sha256=None)

    mirror.breaks_after, mirror.payload = None, OTHER
    setattr(mirror, validator, '"two"' if validator == "etag" else "Tue, 02 Jun 2026 10:00:00 GMT")
    get(target, log, mirror.url, sha256=None)

    assert target.read_bytes() == OTHER


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_checksum_and_a_strong_validator_nothing_is_resumed(
    serve: Serve, target: Path, log: list[str], etag: str | None
) -> None:
    mirror = serve(breaks_after=100_000, etag=etag)
    with pytest.raises(TransferBroken):
        get(target, log, mirror.url, sha256=None)

    mirror.breaks_after = None
    get(target, log, mirror.url, sha256=None)

    assert mirror.ranges() == [None, None]
    assert target.read_bytes() == PAYLOAD


def test_without_a_checksum_another_url_starts_afresh(serve: Serve, target: Path, log: list[str]) -> None:
    with pytest.raises(TransferBroken):
        get(target, log, serve(breaks_after=100_000, etag='"one"').url, sha256=None)

    other = serve(OTHER, etag='"one"')
    get(target, log, other.url, sha256=None)

    assert other.ranges() == [None]
    assert target.read_bytes() == OTHER


def test_pieces_gathered_under_a_checksum_are_not_resumed_without_one(
    serve: Serve, target: Path, log: list[str]
) -> None:
    mirror, other = serve(breaks_after=100_000, etag='"one"'), serve(OTHER, breaks_after=100_000)
    with pytest.raises(TransferBroken):
        get(target, log, mirror.url, sha256=None)
    with pytest.raises(TransferBroken):
        get(target, log, other.url, sha256=SHA256)

    mirror.breaks_after = None
    get(target, log, mirror.url, sha256=None)

    assert mirror.ranges()[-1] is None
    assert target.read_bytes() == PAYLOAD


# Slow mirrors


def test_a_crawling_mirror_is_left_for_the_next_keeping_what_arrived(
    serve: Serve, target: Path, log: list[str]
) -> None:
    crawling, fast = serve(bytes_per_s=CRAWL), serve()

    get(target, log, crawling.url, fast.url, limits=IMPATIENT)

    (asked,) = fast.ranges()
    assert asked
    assert int(asked.removeprefix("bytes=").removesuffix("-")) > 0
    assert target.read_bytes() == PAYLOAD
    assert any(line.startswith(f"{crawling.host}: slow, ") for line in log)


def test_the_last_reachable_mirror_is_taken_at_any_speed(serve: Serve, target: Path, log: list[str]) -> None:
    small = PAYLOAD[:20_000]
    crawling = serve(small, bytes_per_s=CRAWL)

    get(target, log, crawling.url, closed_url(), sha256=hashlib.sha256(small).hexdigest(), limits=IMPATIENT)

    assert target.read_bytes() == small
    assert crawling.ranges() == [None]


def test_a_slow_mirror_is_turned_back_to_when_the_others_fail(serve: Serve, target: Path, log: list[str]) -> None:
    small = PAYLOAD[:20_000]
    crawling, failing = serve(small, bytes_per_s=CRAWL), serve(status=500)

    get(target, log, crawling.url, failing.url, sha256=hashlib.sha256(small).hexdigest(), limits=IMPATIENT)

    assert len(crawling.gets()) == 2
    assert target.read_bytes() == small


# Wrong bytes


def test_wrong_bytes_never_become_the_target(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve(OTHER)

    with pytest.raises(InputError) as error:
        get(target, log, mirror.url)

    assert SHA256 in format_validation_error(error)
    assert hashlib.sha256(OTHER).hexdigest() in format_validation_error(error)
    assert list(target.parent.iterdir()) == []
    assert mirror.ranges() == [None]


def test_the_next_mirror_is_taken_when_one_sends_wrong_bytes(serve: Serve, target: Path, log: list[str]) -> None:
    get(target, log, serve(OTHER).url, serve().url)

    assert target.read_bytes() == PAYLOAD


def test_wrong_bytes_from_every_mirror_are_an_error_of_the_world(serve: Serve, target: Path, log: list[str]) -> None:
    mirrors = [serve(OTHER), serve(OTHER[:1000])]

    with pytest.raises(EnvironmentFailure) as error:
        get(target, log, *(mirror.url for mirror in mirrors))

    assert not isinstance(error.value, SourceUnavailable | TransferBroken)
    assert all(f"{mirror.host}: got sha256" in format_validation_error(error) for mirror in mirrors)
    assert not target.exists()


def test_pieces_that_do_not_fit_together_are_fetched_afresh_from_the_same_mirror(
    serve: Serve, target: Path, log: list[str]
) -> None:
    wrong, right = serve(OTHER, breaks_after=100_000), serve()

    get(target, log, wrong.url, right.url)

    assert right.ranges() == ["bytes=100000-", None]
    assert target.read_bytes() == PAYLOAD


# Mirrors that refuse


def test_a_server_that_refuses_head_is_reachable(serve: Serve, target: Path, log: list[str]) -> None:
    assert get(target, log, serve(refuses_head=True).url) == SHA256


def test_a_server_error_leads_to_the_next_mirror(serve: Serve, target: Path, log: list[str]) -> None:
    failing = serve(status=500)

    get(target, log, failing.url, serve().url)

    assert f"{failing.host}: answered 500 Internal Server Error; 0.0 MB kept" in log


def test_a_redirect_is_followed(serve: Serve, target: Path, log: list[str]) -> None:
    assert get(target, log, serve(redirect_to=serve().url).url, sha256=None) == SHA256


def test_a_redirect_to_plain_http_elsewhere_is_refused(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve(redirect_to="http://mirror.invalid/archive.tar.gz")

    with pytest.raises(SourceUnavailable, match=r"redirects to plain http at mirror\.invalid"):
        get(target, log, mirror.url, sha256=None)


def test_a_redirect_from_https_to_plain_http_is_refused_even_with_a_checksum(
    serve: Serve, target: Path, log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    plain = serve()
    mirror = serve(certificate=certificate, redirect_to=plain.url)

    with pytest.raises(SourceUnavailable, match="redirects to plain http"):
        get(target, log, mirror.url)

    assert plain.requests == []


def test_plain_http_elsewhere_needs_a_checksum(target: Path, log: list[str]) -> None:
    with pytest.raises(InputError, match=r"plain http to mirror\.invalid; use https:// or give --sha256"):
        get(target, log, "http://mirror.invalid/archive.tar.gz", sha256=None)


# Nothing there


def test_no_reachable_mirror_is_said_fast_naming_all_and_the_ways_on(target: Path, log: list[str]) -> None:
    urls = [closed_url(), closed_url(), "https://mirror.invalid/archive.tar.gz"]

    began = time.monotonic()
    with pytest.raises(SourceUnavailable) as error:
        fetch(urls, target, SHA256, log.append)

    assert time.monotonic() - began < 15
    assert all(f"{url.split('/')[2]}: " in format_validation_error(error) for url in urls)
    assert f"{urls[0].split('/')[2]}: Connection refused; " in format_validation_error(error)
    assert re.search(r"mirror\.invalid: (name not known|no answer in 5 s)", format_validation_error(error))
    assert format_validation_error(error).endswith("give --source PATH, try again later, or use --source synthetic")


def test_a_server_that_never_answers_does_not_hold_up_the_verdict(target: Path, log: list[str]) -> None:
    began = time.monotonic()
    with silent_url() as url, pytest.raises(SourceUnavailable, match=r"no answer in|went silent"):
        get(target, log, url, limits=Limits(contact_timeout_s=0.3))

    assert time.monotonic() - began < 15


def test_a_name_that_cannot_be_a_host_is_one_line_too(target: Path, log: list[str]) -> None:
    with pytest.raises(SourceUnavailable, match=r"a\.\.invalid: name not known"):
        get(target, log, "https://a..invalid/archive.tar.gz")


def test_refusals_alone_are_unavailable_not_broken(serve: Serve, target: Path, log: list[str]) -> None:
    with pytest.raises(SourceUnavailable, match="answered 404 Not Found"):
        get(target, log, serve(status=404).url)


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(
    serve: Serve, target: Path, log: list[str]
) -> None:
    mirror = serve(claims_bytes=10**18)

    with pytest.raises(
        EnvironmentFailure, match=r"disk: expected [\d,]+ MB free in .*, got [\d,]+ MB; free some or give --store"
    ):
        get(target, log, mirror.url)

    assert not part_of(target).exists()


def test_credentials_are_never_logged(
    serve: Serve, target: Path, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mirror = serve(breaks_after=100_000, etag='"one"')
    url = mirror.url.replace("http://", "http://user:secret-password@") + "?signature=secret-token"

    with pytest.raises(TransferBroken) as error:
        get(target, log, url, sha256=None)

    kept = part_of(target).with_name(f"{target.name}.part.json").read_text()
    assert mirror.gets()[0].headers["Authorization"]
    assert "secret" not in " ".join([*log, format_validation_error(error), caplog.text, kept])
