"""Where a store's bytes are: what a folder and a bucket have in common."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tasks.core.store.artifact import FileFacts, Manifest

CURRENT = "current.json"
LOG = "promotions.jsonl"
MANIFEST = "manifest.json"
QUARANTINE = ".quarantine"
# The current run's files, which stand at a store's root, each with the artifact that it is of.
ROOT_FILES = {
    "per_class.parquet": "per_class",
    "predictions.parquet": "predictions",
    "cifar_net.pth": "weights",
    "report.html": "report",
    "metrics.json": "report",
}


def timestamped(label: str) -> str:
    """A name for what is moved away, which nothing else has."""
    return f"{label.replace('/', '-')}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


class Storage(Protocol):
    """Named objects, each there whole or not at all; names have slashes, as in `runs/20261124-….json`."""

    @property
    def location(self) -> str:
        """The folder or URL, as its user names it."""

    @property
    def local(self) -> Path:
        """A folder of this machine for what only it needs: locks, staging, unfinished downloads, copies."""

    @property
    def shared(self) -> bool:
        """Whether other machines, whose locks cannot be seen from here, may work on it too."""

    def prepare(self) -> None:
        """Make ready to be worked on; OSError, or an expected error, if that cannot be."""

    def read(self, name: str) -> bytes | None:
        """An object's content, or None where there is none."""

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of those objects that there are."""

    def write(self, name: str, content: bytes) -> None:
        """Put an object in the place of whatever was there."""

    def swap(self, name: str, before: bytes | None, after: bytes) -> bool:
        """Write an object if it still is as it was read, or absent where that was None; else do nothing."""

    def names(self, folder: str) -> list[str]:
        """The objects right under a folder, without its name."""

    def folders(self, folder: str) -> list[str]:
        """The folders right under a folder, without its name."""

    def unfinished(self, folder: str) -> list[str]:
        """The objects under a folder that are being written, or were when a process was killed."""

    def sweep(self, name: str) -> None:
        """Remove what killed processes left half written of an object; nobody else may be writing it now."""

    def find_damage(
        self, folder: str, wanted: Mapping[str, FileFacts], *, anew: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Each file under `folder` that is not as wanted, and what is wrong with it; every byte is checked.

        Unless `anew`, bytes count as checked that were, and did not change since as far as their keeper can tell.
        """

    def get(self, folder: str) -> Path:
        """A local folder with the files that `damaged` has just found right."""

    def put(self, name: str, source: Path) -> None:
        """Put a file in the place of whatever was there."""

    def versions(self, name: str) -> list[str]:
        """The versions of an artifact, those included whose manifest cannot be read."""

    def payload(self, manifest: Manifest) -> str:
        """The folder of a version's payload."""

    def publish(self, manifest: Manifest, content: bytes, staging: Path) -> bool:
        """Make a version of the files in `staging`, manifest last; False if another machine made it meanwhile."""

    def set_aside(self, name: str, label: str) -> None:
        """Move an object or a folder to the quarantine, if there is one."""

    def delete(self, folder: str) -> None:
        """Remove a folder: from the first step on, nothing in it counts as a version any more."""

    def bytes_in(self, folder: str) -> int:
        """The size of all that is in a folder."""
