"""Where a store's bytes are: the interface of a folder and of a bucket."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.core.store.artifact import FileFacts, Manifest

CURRENT = "current.json"
LOG = "promotions.jsonl"
MANIFEST = "manifest.json"
QUARANTINE = ".quarantine"
RUNS = "runs"
# The current run's files at a store's root, each with the artifact that it belongs to.
ROOT_FILES = {
    "per_class.parquet": "per_class",
    "predictions.parquet": "predictions",
    "cifar_net.pth": "weights",
    "report.html": "report",
    "metrics.json": "report",
}

Model = TypeVar("Model", bound=BaseModel)


def parse_json(model: type[Model], content: bytes | None) -> Model | None:
    """The model in an object's JSON; None if the object is missing or damaged."""
    with suppress(ValidationError):
        return model.model_validate_json(content or b"")
    return None


def timestamped(label: str) -> str:
    """A unique name for something that is moved away."""
    return f"{label.replace('/', '-')}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"


def manifest_name(name: str, version: str) -> str:
    return f"{name}/{version}/{MANIFEST}"


class Storage(Protocol):
    """Named objects at a folder or URL, each complete or absent; names have slashes, as in `runs/20261124-….json`."""

    location: str
    is_shared: ClassVar[bool]  # whether machines whose locks are not visible here may write to it

    @property
    def local(self) -> Path:
        """The folder on this machine for locks, staging, checkpoints, partial downloads and copies."""

    def prepare(self) -> None:
        """Create what a store needs before the first write."""
        for folder in ("locks", "staging"):
            (self.local / folder).mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """An object's content; None if there is no such object."""

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        """The content of the objects that exist."""
        return {name: content for name in names if (content := self.read(name)) is not None}

    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object."""

    def put_file(self, name: str, source: Path) -> None:
        """Create or replace an object by a file's content."""

    def compare_and_swap(self, name: str, before: bytes | None, after: bytes) -> bool:
        """Replace an object only if its content is still `before`, where None means absent; whether it was replaced."""

    def names(self, folder: str) -> list[str]:
        """The objects directly in a folder, without the hidden ones."""
        return self._visible(folder, "file")

    def folders(self, folder: str) -> list[str]:
        """The folders directly in a folder, without the hidden ones."""
        return self._visible(folder, "directory")

    def _visible(self, folder: str, kind: str) -> list[str]:
        return sorted(name for name, each in self._children(folder) if each == kind and not name.startswith("."))

    def _children(self, folder: str) -> Iterator[tuple[str, str]]:
        """Everything directly in a folder, with its kind: `file`, `directory` or another."""

    def partial_writes(self, folder: str) -> list[str]:
        """The objects in a folder that are being written, or were when their process was killed."""

    def remove_partial_writes(self, name: str) -> None:
        """Remove what killed processes left of an object; the caller ensures that nobody is writing it."""

    def find_damage(
        self, folder: str, expected: Mapping[str, FileFacts], *, rehash: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Each missing or altered file in a folder, with its problem.

        `rehash` reads every byte again; otherwise a file that did not change since the last check is not read.
        """

    def local_folder(self, folder: str) -> Path:
        """The folder on this machine that holds the files after `find_damage` found none of them damaged."""

    def versions(self, name: str) -> list[str]:
        """The versions of an artifact, including those with an unreadable manifest."""
        return self.folders(name)

    def payload_folder(self, manifest: Manifest) -> str:
        """The folder of a version's payload."""
        return f"{manifest.name}/{manifest.version}"

    def publish(self, manifest: Manifest, content: bytes, staging: Path) -> bool:
        """Create a version from the files in `staging`, manifest last; False if another machine created it first."""

    def quarantine(self, name: str, label: str) -> None:
        """Move an object or a folder, if it exists, to the quarantine."""

    def delete(self, folder: str) -> None:
        """Remove a folder; nothing in it counts as a version from the first step on."""

    def bytes_in(self, folder: str) -> int:
        """The size of everything in a folder."""
