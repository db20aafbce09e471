"""The places of a store, to inspect and damage from outside: a folder, or a bucket on a real S3 server."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore

from tasks.core.store import Store, open_store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.bucket import Bucket
from tasks.core.store.storage import MANIFEST

SOAK = bool(os.environ.get("CIFAR_FLOW_SOAK"))
PLACES = ["folder", "bucket"] if SOAK else ["folder"]
FOLDER_ONLY = pytest.mark.parametrize("place", ["folder"], indirect=True)
# For tests that would take too long on a bucket in every run.
BUCKET_IN_SOAK = pytest.mark.parametrize("place", PLACES, indirect=True)


class Place(ABC):
    """The objects of one store by name, as in `x/0123456789ab/manifest.json`, without the local folder."""

    @property
    @abstractmethod
    def location(self) -> str:
        """The argument of `open_store`."""

    @property
    @abstractmethod
    def local(self) -> Path:
        """The folder on this machine for locks, staging and copies."""

    @abstractmethod
    def beside(self, name: str) -> "Place":
        """Another place of the same kind."""

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """Every object whose name begins with a prefix, sorted."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """An object's content."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Create or replace an object."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object."""

    @abstractmethod
    def version_names(self, names: Iterable[str]) -> set[str]:
        """The versions that these objects belong to, as in `x/0123456789ab`."""

    @abstractmethod
    def payload(self, version: str, sha256: str) -> str:
        """The folder of the payload of a version with that digest."""

    @abstractmethod
    def hidden(self) -> list[str]:
        """Hidden files and folders, such as partial writes."""

    def open(self) -> Store:
        return open_store(self.location)

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def find(self, name: str) -> bytes | None:
        return self.all(name).get(name)

    def all(self, prefix: str = "") -> dict[str, bytes]:
        """The objects whose names begin with a prefix."""
        return {name: self.read(name) for name in self.names(prefix)}

    def name_of(self, ref: ArtifactRef, file: str) -> str:
        """The name of one file of a version; in a bucket the payload is one folder deeper."""
        [found] = [name for name in self.names() if name.startswith(f"{ref}/") and name.endswith(f"/{file}")]
        return found

    def files(self, ref: ArtifactRef) -> dict[str, bytes]:
        """Every file of a version, its manifest included."""
        return {name.rpartition("/")[2]: content for name, content in self.all(f"{ref}/").items()}

    def versions(self, artifact: str) -> dict[str, dict[str, bytes]]:
        """Every file of every version of an artifact."""
        refs = {"/".join(name.split("/")[:2]) for name in self.names() if name.startswith(f"{artifact}/")}
        return {
            version: self.files(ArtifactRef(name=artifact, version=version, sha256=""))
            for version in sorted(ref.partition("/")[2] for ref in refs)
        }

    def lose(self, ref: ArtifactRef) -> None:
        """Remove a whole version."""
        for name in self.all(f"{ref}/"):
            self.delete(name)


@dataclass(frozen=True)
class FolderPlace(Place):
    root: Path

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def local(self) -> Path:
        return self.root / ".work"

    def beside(self, name: str) -> Place:
        return FolderPlace(self.root.with_name(name))

    def names(self, prefix: str = "") -> list[str]:
        above = self.root / prefix.rpartition("/")[0]
        found = sorted(str(path.relative_to(self.root)) for path in above.rglob("*") if path.is_file())
        return [name for name in found if name.startswith(prefix) and not name.startswith(".work/")]

    def version_names(self, names: Iterable[str]) -> set[str]:
        return {name.rpartition("/")[0] for name in names if name.count("/") == 2 and name[0] != "."}

    def payload(self, version: str, sha256: str) -> str:  # noqa: ARG002
        return version

    def hidden(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob(".*")]

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Keeps the modification time, like a failing disk."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.stat() if path.exists() else None
        path.write_bytes(content)
        if before:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def delete(self, name: str) -> None:
        path = self.root / name
        path.unlink()
        while path.parent != self.root and not any(path.parent.iterdir()):  # as in a bucket
            path = path.parent
            path.rmdir()


@dataclass(frozen=True)
class BucketPlace(Place):
    server: ObjectStore
    prefix: str

    @property
    def location(self) -> str:
        return f"s3://{self.server.bucket}/{self.prefix}"

    @property
    def local(self) -> Path:
        return Bucket(self.location).local

    def beside(self, name: str) -> Place:
        return BucketPlace(self.server, f"{self.prefix}-{name}")

    def names(self, prefix: str = "") -> list[str]:
        return sorted(key.removeprefix(f"{self.prefix}/") for key in self.server.keys(f"{self.prefix}/{prefix}"))

    def version_names(self, names: Iterable[str]) -> set[str]:
        """A payload without a manifest is not a version."""
        return {name.removesuffix(f"/{MANIFEST}") for name in names if name.endswith(f"/{MANIFEST}") and name[0] != "."}

    def payload(self, version: str, sha256: str) -> str:
        return f"{version}/{sha256[:12]}"

    def hidden(self) -> list[str]:
        return []

    def all(self, prefix: str = "") -> dict[str, bytes]:
        found = self.server.all(f"{self.prefix}/{prefix}")
        return {key.removeprefix(f"{self.prefix}/"): content for key, content in sorted(found.items())}

    def read(self, name: str) -> bytes:
        return self.server.read(f"{self.prefix}/{name}")

    def write(self, name: str, content: bytes) -> None:
        self.server.write(f"{self.prefix}/{name}", content)

    def delete(self, name: str) -> None:
        self.server.delete(f"{self.prefix}/{name}")


def flip_a_bit(place: Place, name: str) -> None:
    altered = bytearray(place.read(name))
    altered[3] ^= 1
    place.write(name, bytes(altered))


def truncate(place: Place, name: str) -> None:
    place.write(name, place.read(name)[:-1])


def halve(place: Place, name: str) -> None:
    content = place.read(name)
    place.write(name, content[: len(content) // 2])


def lengthen(place: Place, name: str) -> None:
    place.write(name, place.read(name) + b"\0")


def empty(place: Place, name: str) -> None:
    place.write(name, b"")


def overwrite(place: Place, name: str) -> None:
    place.write(name, b"\xff\xfe garbage")


def delete(place: Place, name: str) -> None:
    place.delete(name)


def make_unreadable(folder: FolderPlace, name: str) -> None:
    """Replace a file by one that not even root can read."""
    folder.delete(name)
    path = folder.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/proc/self/mem")


def copy_store(origin: FolderPlace, target: Place) -> None:
    """Copy a store from a folder to an empty place."""
    for version in origin.version_names(origin.names()):
        payload = target.payload(version, origin.json(f"{version}/{MANIFEST}")["sha256"])
        for name, content in origin.all(f"{version}/").items():
            file = name.rpartition("/")[2]
            target.write(f"{version if file == MANIFEST else payload}/{file}", content)
    for name, content in origin.all().items():
        if name.count("/") < 2:
            target.write(name, content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_payload(store: Store, ref: ArtifactRef) -> dict[str, bytes]:
    """The files of the manifest, read from where the store opens them."""
    manifest, folder = store.manifest(ref.name, ref.version), store.open(ref)
    assert manifest is not None
    return {name: (folder / name).read_bytes() for name in manifest.files}


def staging_folders(store: Store) -> list[Path]:
    return list((store.storage.local / "staging").glob("*"))
