"""Payloads and calls for tests of the downloader."""

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import Mirror

from tasks.core.data.downloader import DEFAULT_LIMITS, Limits, download

PAYLOAD = random.Random(1).randbytes(400_000)
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()
OTHER = random.Random(2).randbytes(400_000)

Serve = Callable[..., Mirror]


def get(target: Path, *urls: str, sha256: str | None = SHA256, limits: Limits = DEFAULT_LIMITS) -> str:
    return download(urls, target, sha256, limits)


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message
