"""Asking mirrors for a file: whom one may ask, who answers at all, and what an answer is good for."""

import logging
import re
import ssl
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

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

Step = Literal["whole", "append", "restart", "refuse"]


class MirrorError(Exception):
    """Why one mirror was left, in a few words."""


# A host that cannot be a name, such as `a..org`, is a UnicodeError of the standard library's look-up.
REQUEST_ERRORS = (MirrorError, httpx.HTTPError, httpx.InvalidURL, UnicodeError)


def host(url: str) -> str:
    """All of a URL that may be shown: the rest can carry a password or a signature."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_safe(url: str, pinned: bool) -> bool:
    """Whether nobody on the way can exchange the file unseen; `pinned` is whether its checksum is known."""
    return url.startswith("https://") or is_loopback(url) or pinned


def open_client(connect_timeout_s: float, read_timeout_s: float, pinned: bool) -> httpx.Client:
    logging.getLogger("httpx").addFilter(_hide_secrets)
    try:
        return httpx.Client(
            follow_redirects=True,
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(read_timeout_s, connect=connect_timeout_s),
            # A connection that lay idle may be dead by the time it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
            event_hooks={"response": [partial(_refuse_plain_redirect, pinned=pinned)]},
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise EnvironmentFailure(
            f"network: {reason(error)}; check the environment's proxy and certificate settings"
        ) from error


def unreachable(client: httpx.Client, urls: Sequence[str], timeout_s: float) -> dict[str, Exception]:
    """The URLs that give no answer of any kind, and why: all are asked at once, so one deadline holds for them all."""
    answers: dict[str, Exception | None] = {}

    def ask(url: str) -> None:
        try:
            client.head(url, follow_redirects=False, timeout=timeout_s)
            answers[url] = None
        except REQUEST_ERRORS as error:
            answers[url] = error

    # Daemons, because nothing can interrupt a look-up of a name that hangs.
    threads = [Thread(target=ask, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = MirrorError(f"no answer in {timeout_s:g} s")
    found = {url: answers.get(url, silent) for url in urls}
    return {url: error for url, error in found.items() if error}


def reason(error: BaseException) -> str:
    """A few words on why a request failed, from the cause at the bottom of it."""
    if isinstance(error, httpx.TimeoutException):
        return "no connection in time" if isinstance(error, httpx.ConnectTimeout) else "went silent"
    while below := error.__cause__ or error.__context__:
        error = below
    if isinstance(error, gaierror | UnicodeError):
        return "name not known"
    # OpenSSL's strerror has its library's name and line number around the words.
    words = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else ""
    words = words or getattr(error, "strerror", "") or str(error) or type(error).__name__
    return " ".join(words.partition(" (")[0].split()).rstrip(".")


def range_headers(offset: int, validator: str) -> dict[str, str]:
    """Ask for the bytes from `offset` on, and with a validator only if the file is still the same."""
    if not offset:
        return {}
    return {"Range": f"bytes={offset}-"} | ({"If-Range": validator} if validator else {})


def next_step(status: int, headers: Mapping[str, str], offset: int, validator: str) -> Step:
    """What the answer to a request for the bytes from `offset` on is good for; offset 0 asks for the whole file."""
    if status == 200:
        return "whole"
    if not offset or status not in (206, 416):
        return "refuse"
    content_range = CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    goes_on = status == 206 and content_range is not None and int(content_range[1]) == offset
    unchanged = not validator or validator_of(headers) in ("", validator)
    return "append" if goes_on and unchanged else "restart"


def total_bytes(headers: Mapping[str, str], offset: int) -> int | None:
    """The length of the whole file, if an answer that begins at `offset` tells."""
    content_range = CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if offset and content_range and content_range[2] != "*":
        return int(content_range[2])
    length = headers.get("content-length", "")
    return offset + int(length) if length.isdecimal() else None


def validator_of(headers: Mapping[str, str]) -> str:
    """What names this version of the file for If-Range, which takes no weak ETag (RFC 9110, 13.1.5); '' if nothing."""
    validator = headers.get("etag", headers.get("last-modified", ""))
    return "" if validator.startswith("W/") else validator


def _refuse_plain_redirect(response: httpx.Response, pinned: bool) -> None:
    if not response.has_redirect_location:
        return
    there = response.url.join(response.headers["location"])
    if there.scheme == "http" and (response.url.scheme == "https" or not is_safe(str(there), pinned)):
        raise MirrorError(f"redirects to plain http at {there.host}")


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Strip passwords and queries from the URLs in httpx's own log lines; passes every record."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            arg.copy_with(username=None, password=None, query=None) if isinstance(arg, httpx.URL) else arg
            for arg in record.args
        )
    return True
