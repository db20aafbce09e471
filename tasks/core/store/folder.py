"""A store in a folder: what is written is synced, and renamed into place whole."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime import files
from tasks.core.store.artifact import FileFacts, Manifest
from tasks.core.store.storage import MANIFEST, QUARANTINE, timestamped


@dataclass(frozen=True)
class Folder:
    """Storage in the folder `root`, on a file system whose locks reach everyone who uses it."""

    root: Path
    shared = False

    @property
    def location(self) -> str:
        return str(self.root)

    @property
    def local(self) -> Path:
        return self.root / ".work"

    @property
    def _trash(self) -> Path:
        return self.local / "trash"

    def prepare(self) -> None:
        for folder in ("locks", "staging", "trash"):
            (self.local / folder).mkdir(parents=True, exist_ok=True)
        for left in self._trash.iterdir():
            shutil.rmtree(left, ignore_errors=True)

    def read(self, name: str) -> bytes | None:
        path = self.root / name
        with _reading(path), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return path.read_bytes()
        return None

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        return {name: content for name in names if (content := self.read(name)) is not None}

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, content)

    def swap(self, name: str, before: bytes | None, after: bytes) -> bool:
        with FileLock(self.local / "locks" / "swap.lock"):
            if self.read(name) != before:
                return False
            self.write(name, after)
            return True

    def names(self, folder: str) -> list[str]:
        return self._listed(folder, Path.is_file)

    def folders(self, folder: str) -> list[str]:
        return self._listed(folder, Path.is_dir)

    def unfinished(self, folder: str) -> list[str]:
        return files.unfinished(self.root / folder)

    def sweep(self, name: str) -> None:
        files.sweep(self.root / name)

    def find_damage(
        self, folder: str, wanted: Mapping[str, FileFacts], *, anew: bool = False
    ) -> Iterator[tuple[str, str]]:
        digest = files.sha256_of if anew else files.sha256_cached
        for name, facts in wanted.items():
            path = self.root / folder / name
            try:
                if not path.is_file():
                    yield name, f"{name} is missing"
                elif digest(path) != facts.sha256:
                    yield name, f"{name} is damaged: {facts.describe_mismatch(path.stat().st_size)}"
            except OSError as error:
                yield name, f"{name} cannot be read: {error.strerror}"

    def get(self, folder: str) -> Path:
        return self.root / folder

    def put(self, name: str, source: Path) -> None:
        files.copy(source, self.root / name)

    def versions(self, name: str) -> list[str]:
        return self.folders(name)

    def payload(self, manifest: Manifest) -> str:
        return f"{manifest.name}/{manifest.version}"

    def publish(self, manifest: Manifest, content: bytes, staging: Path) -> bool:
        for name in manifest.files:
            files.sync(staging / name)
        files.write_bytes(staging / MANIFEST, content)
        target = self.root / self.payload(manifest)
        target.parent.mkdir(exist_ok=True)
        staging.rename(target)
        files.sync(target.parent)
        return True

    def set_aside(self, name: str, label: str) -> None:
        quarantine = self.root / QUARANTINE
        with files.disk_errors(self.root), suppress(FileNotFoundError):
            quarantine.mkdir(exist_ok=True)
            (self.root / name).rename(quarantine / timestamped(label))

    def delete(self, folder: str) -> None:
        self._trash.mkdir(exist_ok=True)
        doomed = self._trash / timestamped(folder)
        (self.root / folder).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)  # what is left goes when the store is opened

    def bytes_in(self, folder: str) -> int:
        return sum(path.stat().st_size for path in (self.root / folder).rglob("*") if path.is_file())

    def _listed(self, folder: str, is_wanted: Callable[[Path], bool]) -> list[str]:
        path = self.root / folder
        with _reading(path):
            children = sorted(path.iterdir()) if path.is_dir() else []
            return [child.name for child in children if not child.name.startswith(".") and is_wanted(child)]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what keeps a file or a folder from being read into one line."""
    try:
        yield
    except OSError as error:
        raise EnvironmentFailure(
            f"{path}: cannot be read: {error.strerror}; check the disk, and who may read it"
        ) from None
