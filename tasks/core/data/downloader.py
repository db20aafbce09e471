"""Download one file over HTTP from several mirrors, resuming partial downloads."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tasks.core.data import http_range
from tasks.core.data.http_range import MirrorError, host_of
from tasks.core.data.partial_file import PartialFile
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime.files import check_free_space, disk_errors, sha256_of
from tasks.core.runtime.logs import logger
from tasks.core.runtime.progress import BYTES, progress_bar

SOURCE_ADVICE = "give --source PATH, try again later, or use --source synthetic"


class SourceUnavailable(EnvironmentFailure):
    """No mirror sent any data; an immediate retry is pointless."""


class TransferBroken(EnvironmentFailure):
    """The transfer stopped before the end; the received data is kept, and the next call resumes there."""


class SlowMirrorError(MirrorError):
    """The mirror works, but another one may be faster."""


@dataclass(frozen=True)
class Limits:
    """Timeouts, and the speed below which the next mirror is tried."""

    connect_timeout_s: float = 5
    read_timeout_s: float = 15
    slow_window_s: float = 10
    slow_bytes_per_s: int = 200_000


DEFAULT_LIMITS = Limits()


def download(urls: Sequence[str], target: Path, sha256: str | None, limits: Limits = DEFAULT_LIMITS) -> str:
    """Download a file from the first mirror that works and return its SHA-256.

    A partial download stays at `<target>.part`, and the next call resumes it: with `sha256` from any mirror,
    otherwise only from the same URL while its ETag or date is unchanged. One call at a time per target.
    """
    has_checksum = sha256 is not None
    for url in urls:
        if not http_range.is_safe(url, has_checksum=has_checksum):
            got, advice = f"plain http to {host_of(url)}", "use https:// or give --sha256"
            raise InputError("source", expected="https://", got=got, advice=advice)
    target.parent.mkdir(parents=True, exist_ok=True)
    with http_range.open_client(limits.connect_timeout_s, limits.read_timeout_s, has_checksum=has_checksum) as client:
        return _Download(list(dict.fromkeys(urls)), PartialFile(target), sha256, limits, client).run()


@dataclass
class _Download:
    """The state of one `download` call."""

    urls: list[str]
    partial_file: PartialFile
    sha256: str | None
    limits: Limits
    client: httpx.Client
    failures: dict[str, Exception] = field(default_factory=dict)
    wrong_sha256: str | None = None  # of a complete file from one mirror
    received_bytes: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        return self.partial_file.target.name

    def run(self) -> str:
        """Try the mirrors in order; slow ones are tried again, at any speed, after the others."""
        for url, error in http_range.find_unreachable(self.client, self.urls, self.limits.connect_timeout_s).items():
            self._record_failure(url, error)
        remaining = [url for url in self.urls if url not in self.failures]
        while remaining:
            url = remaining.pop(0)
            try:
                return self._download_from(url, at_any_speed=url in self.failures or not remaining)
            except http_range.REQUEST_ERRORS as error:
                self._record_failure(url, error)
                if isinstance(error, SlowMirrorError):
                    remaining.append(url)
        raise self._final_error()

    def _record_failure(self, url: str, error: Exception) -> None:
        self.failures[url] = error
        kept = format_megabytes(self.partial_file.size())
        logger.info(f"download: {host_of(url)} failed: {http_range.failure_reason(error)}; {kept} kept")

    def _download_from(self, url: str, at_any_speed: bool) -> str:
        """Download the missing bytes from one mirror, check the checksum and publish the file."""
        action = self._receive(url, at_any_speed)
        digest = sha256_of(self.partial_file.path)
        if digest == self.sha256 or (self.sha256 is None and action != "restart"):
            self._publish()
            return digest
        self.partial_file.delete()
        if action == "replace":
            self.wrong_sha256 = digest
            raise MirrorError(f"wrong sha256 {digest}")
        if action == "append":
            logger.info(f"download: {self.name} has a wrong checksum after resuming; starting over")
        return self._download_from(url, at_any_speed)

    def _receive(self, url: str, at_any_speed: bool) -> http_range.Action:
        """Request the missing bytes and write them, unless the action is "restart"."""
        validator = "" if self.sha256 else self.partial_file.load_validator(url)
        offset = self.partial_file.size() if self.sha256 or validator else 0
        with self.client.stream("GET", url, headers=http_range.range_headers(offset, validator)) as response:
            action = http_range.choose_action(response.status_code, response.headers, offset, validator)
            if action == "fail":
                raise MirrorError(f"answered {response.status_code} {response.reason_phrase}".rstrip())
            if action == "replace":
                self.partial_file.delete()
            if action != "restart":
                self._append_body(url, response, at_any_speed)
        return action

    def _append_body(self, url: str, response: httpx.Response, at_any_speed: bool) -> None:
        folder, offset = self.partial_file.target.parent, self.partial_file.size()
        total = http_range.total_bytes(response.headers, offset)
        if total is not None:
            check_free_space(folder, total - offset)
        # With a checksum, any mirror may have sent the bytes: no URL can vouch for them.
        self.partial_file.save_origin(url, "" if self.sha256 else http_range.validator_of(response.headers))
        size = format_megabytes(total) if total is not None else "unknown size"
        resuming = f", resuming at {format_megabytes(offset)}" if offset else ""
        logger.info(f"download: {self.name}, {size} from {host_of(url)}{resuming}")
        # Raw, because a .tar.gz declared as `Content-Encoding: gzip` must not be decompressed.
        chunks = response.iter_raw() if at_any_speed else check_speed(response.iter_raw(), self.limits)
        with disk_errors(folder), self.partial_file.path.open("ab") as file, progress_bar(BYTES) as show:
            for chunk in chunks:
                file.write(chunk)
                self.received_bytes += len(chunk)
                offset += len(chunk)
                show(offset, total or offset, host_of(url))
        if total not in (None, offset):
            raise MirrorError(f"ended after {offset:,} of {total:,} bytes")

    def _publish(self) -> None:
        size = format_megabytes(self.partial_file.size())
        self.partial_file.publish()
        seconds = time.monotonic() - self.started
        received, speed = format_megabytes(self.received_bytes), format_megabytes(self.received_bytes / seconds)
        logger.info(f"download: {self.name} complete, {size}; received {received} in {seconds:.1f} s, {speed}/s")

    def _final_error(self) -> EnvironmentFailure | InputError:
        """The error of a download that no mirror could complete."""
        reasons = "; ".join(f"{host_of(url)}: {http_range.failure_reason(self.failures[url])}" for url in self.urls)
        kept_bytes = self.partial_file.size()
        if self.wrong_sha256 and len(self.urls) == 1:
            expected, advice = f"sha256 {self.sha256}", "correct --sha256 or the URL"
            return InputError(self.name, expected=expected, got=self.wrong_sha256, advice=advice)
        if self.wrong_sha256 and not kept_bytes:
            problem = f"{self.name}: no mirror has the file with sha256 {self.sha256} ({reasons})"
            return EnvironmentFailure(problem, advice=SOURCE_ADVICE)
        if self.received_bytes:
            kept = format_megabytes(kept_bytes)
            return TransferBroken(f"{self.name}: {reasons}", advice=f"{kept} kept; run again to resume")
        return SourceUnavailable(f"{self.name}: no mirror sent any data ({reasons})", advice=SOURCE_ADVICE)


def check_speed(chunks: Iterable[bytes], limits: Limits) -> Iterator[bytes]:
    """Yield the chunks; raise SlowMirrorError after a time window with too few bytes."""
    window_started, window_bytes = time.monotonic(), 0
    for chunk in chunks:
        yield chunk
        window_bytes += len(chunk)
        seconds = time.monotonic() - window_started
        if seconds < limits.slow_window_s:
            continue
        if window_bytes < limits.slow_bytes_per_s * seconds:
            raise SlowMirrorError(f"slow, {window_bytes / 1000 / seconds:.0f} kB/s over {seconds:.0f} s")
        window_started, window_bytes = time.monotonic(), 0


def format_megabytes(byte_count: float) -> str:
    return f"{byte_count / 1e6:.1f} MB"
