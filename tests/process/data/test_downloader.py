"""Downloads over HTTP, from real servers on loopback."""

import hashlib
import logging
import re
import time
from pathlib import Path

import pytest
from downloads import OTHER, PAYLOAD, SHA256, Serve, get, one_line, part_of
from loopback import closed_url, make_certificate, silent_url

from tasks.core.data.downloader import Limits, SourceUnavailable, TransferBroken, download
from tasks.core.errors import EnvironmentFailure, InputError

STRICT = Limits(slow_window_s=0.3, slow_bytes_per_s=100_000)
SLOW_BYTES_PER_S = 20_000


def test_a_download_is_complete_and_leaves_no_other_file(serve: Serve, target: Path, log: list[str]) -> None:
    mirror = serve()

    assert get(target, mirror.url) == SHA256

    assert target.read_bytes() == PAYLOAD
    assert list(target.parent.iterdir()) == [target]
    assert log[0] == f"download: archive.tar.gz, 0.4 MB from {mirror.host}"
    assert log[-1].startswith("download: archive.tar.gz complete, 0.4 MB; received 0.4 MB in ")
    assert log[-1].endswith(" MB/s")


def test_without_a_checksum_the_digest_is_returned(serve: Serve, target: Path) -> None:
    assert get(target, serve().url, sha256=None) == SHA256


def test_a_file_of_unknown_length_is_downloaded(serve: Serve, target: Path, log: list[str]) -> None:
    get(target, serve(hides_length=True).url)

    assert target.read_bytes() == PAYLOAD
    assert "unknown size" in log[0]


def test_an_archive_with_a_content_encoding_is_not_decompressed(serve: Serve, target: Path) -> None:
    assert get(target, serve(content_encoding="gzip").url) == SHA256


def test_https_needs_a_trusted_certificate(
    serve: Serve, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    mirror = serve(certificate=certificate)

    with pytest.raises(SourceUnavailable, match=f"{mirror.host}: self.signed certificate\\)"):
        get(target, mirror.url)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(target, mirror.url) == SHA256


def test_the_proxy_of_the_environment_is_used(serve: Serve, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve()
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")

    get(target, "http://mirror.invalid/archive.tar.gz")

    assert proxy.gets()[0].path == "http://mirror.invalid/archive.tar.gz"


# Slow mirrors


def test_a_slow_mirror_is_replaced_by_the_next_which_resumes(serve: Serve, target: Path, log: list[str]) -> None:
    slow, fast = serve(bytes_per_s=SLOW_BYTES_PER_S), serve()

    get(target, slow.url, fast.url, limits=STRICT)

    (requested,) = fast.ranges()
    assert requested
    assert int(requested.removeprefix("bytes=").removesuffix("-")) > 0
    assert target.read_bytes() == PAYLOAD
    assert any(line.startswith(f"download: {slow.host} failed: slow, ") for line in log)


def test_the_last_reachable_mirror_is_used_at_any_speed(serve: Serve, target: Path) -> None:
    small = PAYLOAD[:20_000]
    slow = serve(small, bytes_per_s=SLOW_BYTES_PER_S)

    get(target, slow.url, closed_url(), sha256=hashlib.sha256(small).hexdigest(), limits=STRICT)

    assert target.read_bytes() == small
    assert slow.ranges() == [None]


def test_a_slow_mirror_is_tried_again_after_the_others_failed(serve: Serve, target: Path) -> None:
    small = PAYLOAD[:20_000]
    slow, failing = serve(small, bytes_per_s=SLOW_BYTES_PER_S), serve(status=500)

    get(target, slow.url, failing.url, sha256=hashlib.sha256(small).hexdigest(), limits=STRICT)

    assert len(slow.gets()) == 2
    assert target.read_bytes() == small


# Wrong checksums


def test_a_file_with_a_wrong_checksum_is_deleted(serve: Serve, target: Path) -> None:
    mirror = serve(OTHER)

    with pytest.raises(InputError) as error:
        get(target, mirror.url)

    assert SHA256 in one_line(error)
    assert hashlib.sha256(OTHER).hexdigest() in one_line(error)
    assert list(target.parent.iterdir()) == []
    assert mirror.ranges() == [None]


def test_the_next_mirror_is_tried_after_a_wrong_checksum(serve: Serve, target: Path) -> None:
    get(target, serve(OTHER).url, serve().url)

    assert target.read_bytes() == PAYLOAD


def test_wrong_checksums_of_all_mirrors_are_an_environment_error(serve: Serve, target: Path) -> None:
    mirrors = [serve(OTHER), serve(OTHER[:1000])]

    with pytest.raises(EnvironmentFailure) as error:
        get(target, *(mirror.url for mirror in mirrors))

    assert not isinstance(error.value, SourceUnavailable | TransferBroken)
    assert all(f"{mirror.host}: wrong sha256" in one_line(error) for mirror in mirrors)
    assert not target.exists()


def test_a_wrong_checksum_after_resuming_restarts_with_the_same_mirror(serve: Serve, target: Path) -> None:
    wrong, right = serve(OTHER, breaks_after=100_000), serve()

    get(target, wrong.url, right.url)

    assert right.ranges() == ["bytes=100000-", None]
    assert target.read_bytes() == PAYLOAD


# Servers that refuse


def test_a_server_that_refuses_head_requests_is_reachable(serve: Serve, target: Path) -> None:
    assert get(target, serve(refuses_head=True).url) == SHA256


def test_the_next_mirror_is_tried_after_a_server_error(serve: Serve, target: Path, log: list[str]) -> None:
    failing = serve(status=500)

    get(target, failing.url, serve().url)

    assert f"download: {failing.host} failed: answered 500 Internal Server Error; 0.0 MB kept" in log


def test_a_redirect_is_followed(serve: Serve, target: Path) -> None:
    assert get(target, serve(redirect_to=serve().url).url, sha256=None) == SHA256


def test_a_redirect_to_plain_http_is_refused(serve: Serve, target: Path) -> None:
    mirror = serve(redirect_to="http://mirror.invalid/archive.tar.gz")

    with pytest.raises(SourceUnavailable, match=r"redirects to plain http at mirror\.invalid"):
        get(target, mirror.url, sha256=None)


def test_a_redirect_from_https_to_http_is_refused_despite_a_checksum(
    serve: Serve, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    plain = serve()
    mirror = serve(certificate=certificate, redirect_to=plain.url)

    with pytest.raises(SourceUnavailable, match="redirects to plain http"):
        get(target, mirror.url)

    assert plain.requests == []


def test_plain_http_needs_a_checksum(target: Path) -> None:
    with pytest.raises(InputError, match=r"plain http to mirror\.invalid; use https:// or give --sha256"):
        get(target, "http://mirror.invalid/archive.tar.gz", sha256=None)


# Unreachable servers


def test_without_a_reachable_mirror_the_error_is_fast_and_names_all(target: Path) -> None:
    urls = [closed_url(), closed_url(), "https://mirror.invalid/archive.tar.gz"]

    started = time.monotonic()
    with pytest.raises(SourceUnavailable) as error:
        download(urls, target, SHA256)

    assert time.monotonic() - started < 15
    assert all(f"{url.split('/')[2]}: " in one_line(error) for url in urls)
    assert f"{urls[0].split('/')[2]}: Connection refused; " in one_line(error)
    assert re.search(r"mirror\.invalid: (unknown host name|no answer in 5 s)", one_line(error))
    assert one_line(error).endswith("give --source PATH, try again later, or use --source synthetic")


def test_a_server_that_never_responds_is_given_up_soon(target: Path) -> None:
    started = time.monotonic()
    with silent_url() as url, pytest.raises(SourceUnavailable, match=r"no answer in|stopped sending data"):
        get(target, url, limits=Limits(connect_timeout_s=0.3))

    assert time.monotonic() - started < 15


def test_an_invalid_host_name_is_a_one_line_error(target: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"a\.\.invalid: unknown host name"):
        get(target, "https://a..invalid/archive.tar.gz")


def test_http_errors_without_data_mean_source_unavailable(serve: Serve, target: Path) -> None:
    with pytest.raises(SourceUnavailable, match="answered 404 Not Found"):
        get(target, serve(status=404).url)


def test_a_file_larger_than_the_disk_is_refused_before_writing(serve: Serve, target: Path) -> None:
    mirror = serve(claims_bytes=10**18)

    with pytest.raises(
        EnvironmentFailure, match=r"disk: expected [\d,]+ MB free in .*, got [\d,]+ MB; free some space or give --store"
    ):
        get(target, mirror.url)

    assert not part_of(target).exists()


def test_credentials_are_never_logged(
    serve: Serve, target: Path, log: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    mirror = serve(breaks_after=100_000, etag='"one"')
    url = mirror.url.replace("http://", "http://user:secret-password@") + "?signature=secret-token"

    with pytest.raises(TransferBroken) as error:
        get(target, url, sha256=None)

    kept = part_of(target).with_name(f"{target.name}.part.json").read_text()
    assert mirror.gets()[0].headers["Authorization"]
    assert "secret" not in " ".join([*log, one_line(error), caplog.text, kept])
