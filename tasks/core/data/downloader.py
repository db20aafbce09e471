"""Fetching one file over HTTP from several mirrors in turn; what arrives is kept, whatever happens."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from tasks.core.data.http_range import (
    REQUEST_ERRORS,
    MirrorError,
    host,
    is_safe,
    next_step,
    open_client,
    range_headers,
    reason,
    total_bytes,
    unreachable,
    validator_of,
)
from tasks.core.data.partial_file import PartialFile
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime.files import check_free_space

WAYS_ON = "give --source PATH, try again later, or use --source synthetic"


class SourceUnavailable(EnvironmentFailure):
    """Nothing came from anywhere: to try again at once is pointless."""


class TransferBroken(EnvironmentFailure):
    """Bytes came, then the transfer broke: what arrived is kept, and the next call goes on from there."""


class SlowMirrorError(MirrorError):
    """It works, but another one may be faster."""


class WrongBytesError(MirrorError):
    """It sent the whole file, but not the one that was asked for."""


@dataclass(frozen=True)
class Limits:
    """How long to wait, and how slow is too slow."""

    contact_timeout_s: float = 5
    connect_timeout_s: float = 5
    read_timeout_s: float = 15
    slow_window_s: float = 10
    slow_bytes_per_s: int = 200_000


DEFAULT_LIMITS = Limits()


def fetch(
    urls: Sequence[str], target: Path, sha256: str | None, log: Callable[[str], None], limits: Limits = DEFAULT_LIMITS
) -> str:
    """Download `target` from the first mirror that works and return its SHA-256.

    What arrived of it stays beside it as `<target>.part`, and the next call goes on from there. With `sha256` any
    mirror may complete what another began; without, only the same URL while its ETag or date is unchanged. One call
    at a time for one target.
    """
    pinned = sha256 is not None
    for url in urls:
        if not is_safe(url, pinned):
            raise InputError(f"source: expected https://, got plain http to {host(url)}; use https:// or give --sha256")
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_client(limits.connect_timeout_s, limits.read_timeout_s, pinned) as client:
        return _Download(list(dict.fromkeys(urls)), PartialFile(target), sha256, log, limits, client).run()


@dataclass
class _Download:
    """One call of `fetch`: what it was asked for, and what it has met so far."""

    urls: list[str]
    part: PartialFile
    sha256: str | None
    log: Callable[[str], None]
    limits: Limits
    client: httpx.Client
    failures: dict[str, Exception] = field(default_factory=dict)
    received_bytes: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return self.part.target.name

    def run(self) -> str:
        """Take the mirrors in turn; one left for being slow gets another chance when all the others have failed."""
        for url, error in unreachable(self.client, self.urls, self.limits.contact_timeout_s).items():
            self._give_up(url, error)
        untried, slow = [url for url in self.urls if url not in self.failures], list[str]()
        while untried or slow:
            url = (untried or slow).pop(0)
            try:
                return self._complete(url, at_any_speed=not untried)
            except SlowMirrorError as error:
                self._give_up(url, error)
                slow.append(url)
            except REQUEST_ERRORS as error:
                self._give_up(url, error)
        raise self._verdict()

    def _give_up(self, url: str, error: Exception) -> None:
        self.failures[url] = error
        self.log(f"{host(url)}: {reason(error)}; {megabytes(self.part.size())} kept")

    def _complete(self, url: str, at_any_speed: bool) -> str:
        """Let this mirror bring what is missing, and give the file its name if it is the right one."""
        in_one_piece = self._receive(url, at_any_speed)
        digest = self.part.sha256()
        if self.sha256 in (None, digest):
            self._publish()
            return digest
        self.part.drop()
        if in_one_piece:
            raise WrongBytesError(f"got sha256 {digest}")
        self.log(f"{self.name}: the pieces do not make up the expected file; starting afresh")
        return self._complete(url, at_any_speed)

    def _receive(self, url: str, at_any_speed: bool) -> bool:
        """Bring the partial file to its full length; true if it is all from one answer of this mirror."""
        validator = "" if self.sha256 else self.part.validator(url)
        offset = self.part.size() if self.sha256 or validator else 0
        with self.client.stream("GET", url, headers=range_headers(offset, validator)) as response:
            step = next_step(response.status_code, response.headers, offset, validator)
            if step == "refuse":
                raise MirrorError(f"answered {response.status_code} {response.reason_phrase}".rstrip())
            if step == "whole":
                self.part.drop()
            if step != "restart":
                self._save(url, response, at_any_speed)
                return step == "whole"
        if response.status_code == 416 and self.part.sha256() == self.sha256:
            return False
        self.part.drop()
        return self._receive(url, at_any_speed)

    def _save(self, url: str, response: httpx.Response, at_any_speed: bool) -> None:
        offset = self.part.size()
        total = total_bytes(response.headers, offset)
        if total is not None:
            check_free_space(self.part.target.parent, total - offset)
        self._note_origin(url, response.headers)
        size = megabytes(total) if total is not None else "unknown size"
        self.log(f"{self.name}: {size} from {host(url)}" + (f", going on at {megabytes(offset)}" if offset else ""))
        # Raw: a .tar.gz that a server declares as `Content-Encoding: gzip` must stay as it is.
        chunks = response.iter_raw() if at_any_speed else fast_enough(response.iter_raw(), self.limits)
        with self.part.appending() as file, progress(host(url), offset, total) as advance:
            for chunk in chunks:
                file.write(chunk)
                self.received_bytes += len(chunk)
                advance(len(chunk))
        if total not in (None, self.part.size()):
            raise MirrorError(f"ended after {self.part.size():,} of {total:,} bytes")

    def _note_origin(self, url: str, headers: Mapping[str, str]) -> None:
        if self.sha256:
            self.part.forget_origin()
        elif not self.part.size():
            self.part.note_origin(url, validator_of(headers))

    def _publish(self) -> None:
        size, seconds = self.part.size(), time.monotonic() - self.began
        self.part.publish()
        received = f"received {megabytes(self.received_bytes)} in {seconds:.1f} s"
        self.log(f"{self.name}: {megabytes(size)} complete; {received}, {megabytes(self.received_bytes / seconds)}/s")

    def _verdict(self) -> EnvironmentFailure | InputError:
        """The error that ends the call when no mirror could complete the file."""
        reasons = "; ".join(f"{host(url)}: {reason(self.failures[url])}" for url in self.urls)
        wrong = any(isinstance(error, WrongBytesError) for error in self.failures.values())
        kept = self.part.size()
        if wrong and not kept:
            mismatch = f"{self.name}: expected sha256 {self.sha256}; {reasons}"
            if len(self.urls) == 1:
                return InputError(f"{mismatch}; correct --sha256 or the URL")
            return EnvironmentFailure(f"{mismatch}; {WAYS_ON}")
        if self.received_bytes:
            return TransferBroken(f"{self.name}: {reasons}; {megabytes(kept)} kept, run again to go on from there")
        return SourceUnavailable(f"{self.name}: nothing came ({reasons}); {WAYS_ON}")


def fast_enough(chunks: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """The chunks as they come, until a window of time has brought too few bytes."""
    began, arrived = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        arrived += len(chunk)
        seconds = time.monotonic() - began
        if seconds < limits.slow_window_s:
            continue
        if arrived < limits.slow_bytes_per_s * seconds:
            raise SlowMirrorError(f"slow, {arrived / 1000 / seconds:.0f} kB/s over {seconds:.0f} s")
        began, arrived = time.monotonic(), 0


@contextmanager
def progress(label: str, offset: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, when someone is there to see it; yields what to call with the size of each chunk."""
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(label, total=total, completed=offset)
        yield lambda count: bar.advance(task, count)


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"
