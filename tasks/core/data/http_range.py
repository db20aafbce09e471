"""HTTP requests to mirrors: safe URLs, reachability, byte ranges (RFC 9110, section 14) and error texts."""

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from socket import gaierror
from threading import Thread
from typing import Literal
from urllib.parse import urlsplit

import httpx

from tasks.core.config import is_loopback
from tasks.core.errors import EnvironmentFailure

Action = Literal["replace", "append", "restart", "fail"]


class MirrorError(Exception):
    """A mirror cannot be used; the message is a few words."""


# The standard library raises UnicodeError for an invalid host name, such as `a..org`.
REQUEST_ERRORS = (MirrorError, httpx.HTTPError, httpx.InvalidURL, UnicodeError)


def host_of(url: str) -> str:
    """Return the host and port of a URL; the other parts may contain a password or a signature."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_safe(url: str, *, has_checksum: bool) -> bool:
    """Whether nobody in between can replace the file unnoticed."""
    return url.startswith("https://") or is_loopback(url) or has_checksum


def open_client(connect_timeout_s: float, read_timeout_s: float, *, has_checksum: bool) -> httpx.Client:
    """Open a client that follows safe redirects only."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its request lines contain passwords and signatures
    try:
        return httpx.Client(
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s),
            # An idle connection may be dead when it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
            event_hooks={"response": [partial(_refuse_plain_redirect, has_checksum=has_checksum)]},
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise EnvironmentFailure(
            f"network: {failure_reason(error)}", advice="check the environment's proxy and certificate settings"
        ) from error


def find_unreachable(client: httpx.Client, urls: Sequence[str], timeout_s: float) -> dict[str, Exception]:
    """Send a HEAD request to all URLs at once and return the error of each URL that does not respond."""
    timeout = MirrorError(f"no answer in {timeout_s:g} s")
    errors: dict[str, Exception] = dict.fromkeys(urls, timeout)

    def send_head(url: str) -> None:
        try:
            client.head(url, follow_redirects=False, timeout=timeout_s)
            del errors[url]
        except REQUEST_ERRORS as error:
            errors[url] = error

    # Daemon threads, because a DNS lookup that hangs cannot be interrupted.
    threads = [Thread(target=send_head, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return errors.copy()  # threads that are still running change `errors` later


def failure_reason(error: BaseException) -> str:
    """Describe in a few words why a request failed, by its root cause."""
    if isinstance(error, httpx.TimeoutException):
        return "no connection in time" if isinstance(error, httpx.ConnectTimeout) else "stopped sending data"
    while cause := error.__cause__ or error.__context__:
        error = cause
    if isinstance(error, gaierror | UnicodeError):
        return "unknown host name"
    # For a certificate, OpenSSL's strerror adds the library name and a line number to verify_message.
    text = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
    return " ".join((text or type(error).__name__).partition(" (")[0].split()).rstrip(".")


def range_headers(offset: int, validator: str) -> dict[str, str]:
    """Headers that request the bytes from `offset` on; with a validator, only if the file is unchanged."""
    if not offset:
        return {}
    return {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})


def choose_action(status: int, headers: Mapping[str, str], offset: int, validator: str) -> Action:
    """Choose what to do with the response to a request for the bytes from `offset` on.

    "replace" and "append" say where the body goes; "restart" requests the whole file again.
    """
    if status == 200:
        return "replace"
    if not offset or status not in (206, 416):
        return "fail"
    continues = status == 206 and headers.get("content-range", "").startswith(f"bytes {offset}-")
    is_unchanged = not validator or validator_of(headers) in ("", validator)
    return "append" if continues and is_unchanged else "restart"


def total_bytes(headers: Mapping[str, str], offset: int) -> int | None:
    """Return the length of the whole file, if the response that starts at `offset` states it."""
    total = headers.get("content-range", "").rpartition("/")[2]
    if total.isdecimal():
        return int(total)
    length = headers.get("content-length", "")
    return offset + int(length) if length.isdecimal() else None


def validator_of(headers: Mapping[str, str]) -> str:
    """Return the ETag or date for If-Range, or ''; weak ETags are not allowed there (RFC 9110, 13.1.5)."""
    validator = headers.get("etag", headers.get("last-modified", ""))
    return "" if validator.startswith("W/") else validator


def _refuse_plain_redirect(response: httpx.Response, *, has_checksum: bool) -> None:
    if not response.has_redirect_location:
        return
    target = response.url.join(response.headers["location"])
    is_downgrade = target.scheme == "http" and response.url.scheme == "https"
    if is_downgrade or (target.scheme == "http" and not is_safe(str(target), has_checksum=has_checksum)):
        raise MirrorError(f"redirects to plain http at {target.host}")
