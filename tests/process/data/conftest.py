"""Servers and target files for tests of the downloader."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from downloads import PAYLOAD, Serve
from loopback import Mirror, serving


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server for a mirror; it stops with the test."""
    with ExitStack() as stack:

        def start(payload: bytes = PAYLOAD, certificate: Path | None = None, **behaviour: object) -> Mirror:
            return stack.enter_context(serving(Mirror(payload, **behaviour), certificate))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "work" / "archive.tar.gz"
