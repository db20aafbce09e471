"""Where a store may be, looked at and spoilt from outside: a folder, or a bucket on a real S3 server."""

import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore

from tasks.core.store import Store, open_store
from tasks.core.store.artifact import ArtifactRef

IN_A_FOLDER = pytest.mark.parametrize("place", ["folder"], indirect=True)  # where a bucket would take long


class Place(ABC):
    """The objects of one store by name, as in `x/0123456789ab/manifest.json`; what only its machine needs is none."""

    @property
    @abstractmethod
    def location(self) -> str:
        """What `open_store` takes."""

    @abstractmethod
    def names(self) -> list[str]:
        """Every object, in alphabetical order."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """An object's content."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Put an object in the place of whatever was there."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object."""

    def open(self) -> Store:
        return open_store(self.location)

    def json(self, name: str) -> Any:
        return json.loads(self.read(name))

    def all(self, prefix: str = "") -> dict[str, bytes]:
        """Every object whose name begins so."""
        return {name: self.read(name) for name in self.names() if name.startswith(prefix)}

    def name_of(self, ref: ArtifactRef, file: str) -> str:
        """The name of one file of a version; a bucket has the payload in a folder of its own."""
        [found] = [name for name in self.names() if name.startswith(f"{ref}/") and name.endswith(f"/{file}")]
        return found

    def files(self, ref: ArtifactRef) -> dict[str, bytes]:
        """Every file of a version, its manifest included."""
        return {name.rpartition("/")[2]: content for name, content in self.all(f"{ref}/").items()}

    def versions(self, artifact: str) -> dict[str, dict[str, bytes]]:
        """Every file of every version that there is of an artifact."""
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

    def names(self) -> list[str]:
        found = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())
        return [name for name in found if not name.startswith(".work/")]

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Keeps the time at which the file was last changed, as a failing disk would."""
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

    def names(self) -> list[str]:
        return sorted(key.removeprefix(f"{self.prefix}/") for key in self.server.keys(f"{self.prefix}/"))

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
    """Not even root can read a process's memory from its beginning."""
    folder.delete(name)
    path = folder.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/proc/self/mem")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def payload_of(store: Store, ref: ArtifactRef) -> dict[str, bytes]:
    """The files that the manifest names, from where the store opens them."""
    manifest, folder = store.manifest(ref.name, ref.version), store.open(ref)
    assert manifest is not None
    return {name: (folder / name).read_bytes() for name in manifest.files}


def staged(store: Store) -> list[Path]:
    return list((store.storage.local / "staging").glob("*"))
