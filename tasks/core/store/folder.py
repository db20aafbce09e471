"""A store in a folder: files are written beside their name, synced, and renamed into place."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime import files
from tasks.core.store.artifact import FileFacts, Manifest
from tasks.core.store.storage import MANIFEST, QUARANTINE, Storage, timestamped


@dataclass(frozen=True)
class Folder(Storage):
    """Storage in a folder, on a file system whose locks work between all of its users."""

    location: str
    is_shared = False

    @property
    def root(self) -> Path:
        return Path(self.location)

    @property
    def local(self) -> Path:
        return self.root / ".work"

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        with _read_errors(path), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return path.read_bytes()
        return None

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, content)

    def put_file(self, name: str, source: Path) -> None:
        files.copy(source, self.root / name)

    def compare_and_swap(self, name: str, before: bytes | None, after: bytes) -> bool:
        with FileLock(self.local / "locks" / "swap.lock"):
            if self.read(name) != before:
                return False
            self.write(name, after)
            return True

    def _children(self, folder: str) -> Iterator[tuple[str, str]]:
        path = self.root / folder
        with _read_errors(path):
            for child in path.iterdir() if path.is_dir() else ():
                yield child.name, "directory" if child.is_dir() else "file" if child.is_file() else "other"

    def partial_writes(self, folder: str) -> list[str]:
        return files.unfinished_writes(self.root / folder)

    def remove_partial_writes(self, name: str) -> None:
        files.remove_leftovers(self.root / name)

    def find_damage(
        self, folder: str, expected: Mapping[str, FileFacts], *, rehash: bool = False
    ) -> Iterator[tuple[str, str]]:
        digest = files.sha256_of if rehash else files.sha256_cached
        for name, facts in expected.items():
            path = self.root / folder / name
            try:
                if not path.is_file():
                    yield name, f"{name} is missing"
                elif digest(path) != facts.sha256:
                    yield name, f"{name} is damaged: {facts.describe_mismatch(path.stat().st_size)}"
            except OSError as error:
                yield name, f"{name} cannot be read: {error.strerror}"

    def local_folder(self, folder: str) -> Path:
        return self.root / folder

    def publish(self, manifest: Manifest, content: bytes, staging: Path) -> bool:
        for name in manifest.files:
            files.sync(staging / name)
        files.write_bytes(staging / MANIFEST, content)
        target = self.root / self.payload_folder(manifest)
        target.parent.mkdir(exist_ok=True)
        staging.rename(target)
        files.sync(target.parent)
        return True

    def quarantine(self, name: str, label: str) -> None:
        folder = self.root / QUARANTINE
        with files.disk_errors(self.root), suppress(FileNotFoundError):
            folder.mkdir(exist_ok=True)
            (self.root / name).rename(folder / timestamped(label))

    def delete(self, folder: str) -> None:
        removed = self.local / "staging" / timestamped(folder)
        (self.root / folder).rename(removed)
        shutil.rmtree(removed, ignore_errors=True)  # the next opening removes the rest

    def bytes_in(self, folder: str) -> int:
        return sum(path.stat().st_size for path in (self.root / folder).rglob("*") if path.is_file())


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = "check the disk and the permissions"
        raise EnvironmentFailure(f"{path}: cannot be read: {error.strerror}", advice=advice) from None
