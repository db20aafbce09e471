"""A store in a bucket: the same objects behind an `s3://` URL, for runs on several machines.

An object appears whole or not at all. The payload goes first, into a folder named by its content, so that no two
makers of a version can mix their files; the manifest goes last, and only if there is none yet. Locks reach this machine
only. Credentials come from the environment, as AWS's own tools take them, and stay there.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.core.config import cache_folder
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import files
from tasks.core.store.artifact import FileFacts, Manifest
from tasks.core.store.storage import MANIFEST, QUARANTINE, timestamped

LOGIN = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
NO_BUCKET = "NoSuchBucket"
NO_OBJECT = "NoSuchKey"
CONDITION_FAILED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class _Copy(FrozenModel):
    """What is known of a local copy: which remote bytes it was made from, and their digest."""

    etag: str
    sha256: str


@dataclass(frozen=True)
class Bucket:
    """Storage under `location`, an `s3://bucket/prefix`; payloads are copied to this machine and checked here."""

    location: str
    shared = True

    @property
    def local(self) -> Path:
        return cache_folder() / hashlib.sha256(self.location.encode()).hexdigest()[:12]

    def prepare(self) -> None:
        for folder in ("locks", "staging"):
            (self.local / folder).mkdir(parents=True, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        with self._errors():
            try:
                content: bytes = self._fs.cat_file(self._path(name), max_concurrency=1)
            except FileNotFoundError as error:
                _raise_without_bucket(error)
                return None
            return content

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        with self._errors():
            found: dict[str, Any] = self._fs.cat(list(paths), on_error="return", max_concurrency=1)
            for result in found.values():
                if isinstance(result, Exception) and not isinstance(result, FileNotFoundError):
                    raise result
            return {paths[path]: result for path, result in found.items() if isinstance(result, bytes)}

    def write(self, name: str, content: bytes) -> None:
        with self._errors():
            self._fs.pipe_file(self._path(name), content)

    def swap(self, name: str, before: bytes | None, after: bytes) -> bool:
        path = self._path(name)
        with self._errors():
            try:
                if before is None:
                    self._fs.pipe_file(path, after, mode="create")
                    return True
                etag = self._fs.info(path)["ETag"]
                if self._fs.cat_file(path, max_concurrency=1) != before:
                    return False
                self._fs.pipe_file(path, after, IfMatch=etag)
            except FileNotFoundError as error:
                if before is None:
                    raise
                _raise_without_bucket(error)
                return False
            except OSError as error:
                if not isinstance(error, FileExistsError) and _code(error) not in CONDITION_FAILED:
                    raise
                return self.read(name) == after  # the condition may have held, and the answer to the first try be lost
            return True

    def names(self, folder: str) -> list[str]:
        return self._listed(folder, "file")

    def folders(self, folder: str) -> list[str]:
        return self._listed(folder, "directory")

    def unfinished(self, folder: str) -> list[str]:  # noqa: ARG002 - objects appear whole
        return []

    def sweep(self, name: str) -> None:
        """Nothing to do: objects appear whole."""

    def find_damage(
        self, folder: str, wanted: Mapping[str, FileFacts], *, anew: bool = False
    ) -> Iterator[tuple[str, str]]:
        there = {each["name"]: each for each in self._children(folder) if each["type"] == "file"}
        for name, facts in wanted.items():
            path = f"{folder}/{name}".lstrip("/")  # the store's root is a folder without a name
            if anew:
                self._note(path).unlink(missing_ok=True)
            found = there.get(self._path(path))
            sha256 = self._copied(path, found["ETag"], facts) if found else None
            if found is None or sha256 is None:
                yield name, f"{name} is missing"
            elif sha256 != facts.sha256:
                yield name, f"{name} is damaged: {facts.describe_mismatch(found['size'])}"

    def get(self, folder: str) -> Path:
        return self._copies(folder)

    def put(self, name: str, source: Path) -> None:
        with self._errors():
            self._fs.put_file(str(source), self._path(name))

    def versions(self, name: str) -> list[str]:
        """A payload whose manifest is not there yet is none: it may be on its way."""
        parts = [path.split("/") for path in self._objects(name)]
        return sorted(part[0] for part in parts if part[1:] == [MANIFEST])

    def payload(self, manifest: Manifest) -> str:
        return f"{manifest.name}/{manifest.version}/{manifest.sha256[:12]}"

    def publish(self, manifest: Manifest, content: bytes, staging: Path) -> bool:
        for name in manifest.files:
            self.put(f"{self.payload(manifest)}/{name}", staging / name)
        return self.swap(f"{manifest.name}/{manifest.version}/{MANIFEST}", None, content)

    def set_aside(self, name: str, label: str) -> None:
        target = f"{QUARANTINE}/{timestamped(label)}"
        with self._errors():
            for path in self._found(name):
                try:
                    self._fs.cp_file(path, self._path(target) + path.removeprefix(self._path(name)))
                except FileNotFoundError as error:
                    _raise_without_bucket(error)
                    continue  # another machine moved it
                self._fs.rm_file(path)

    def delete(self, folder: str) -> None:
        with self._errors():
            self._fs.rm_file(self._path(f"{folder}/{MANIFEST}"))
            for name in self._objects(folder):
                self._fs.rm_file(self._path(f"{folder}/{name}"))
        shutil.rmtree(self._copies(folder), ignore_errors=True)

    def bytes_in(self, folder: str) -> int:
        return sum(found["size"] for found in self._objects(folder).values())

    def _copies(self, folder: str) -> Path:
        return self.local / "copies" / folder

    def _note(self, name: str) -> Path:
        """Where it is written down what a local copy was made from."""
        copy = self._copies(name)
        return copy.with_name(f".{copy.name}.copy")

    @property
    def _fs(self) -> Any:
        return _file_system()

    def _path(self, name: str) -> str:
        return f"{self.location.removeprefix('s3://')}/{name}".rstrip("/")

    def _found(self, folder: str) -> dict[str, Any]:
        """Size and ETag of every object under a folder, or of the object of that name, by path."""
        with self._errors():
            found: dict[str, Any] = self._fs.find(self._path(folder), detail=True)
            return {path: facts for path, facts in found.items() if facts["type"] == "file"}

    def _objects(self, folder: str) -> dict[str, Any]:
        """The same for what is under a folder, by its name from there on."""
        above = f"{self._path(folder)}/"
        return {
            path.removeprefix(above): facts for path, facts in self._found(folder).items() if path.startswith(above)
        }

    def _listed(self, folder: str, kind: str) -> list[str]:
        names = [each["name"].rpartition("/")[2] for each in self._children(folder) if each["type"] == kind]
        return sorted(name for name in names if not name.startswith("."))

    def _children(self, folder: str) -> list[dict[str, Any]]:
        """What is right under a folder, with its type, size and ETag."""
        path = self._path(folder)
        with self._errors():
            try:
                return [each for each in self._fs.ls(path, detail=True) if each["name"] != path]
            except FileNotFoundError as error:
                _raise_without_bucket(error)
                return []

    def _copied(self, name: str, etag: str, wanted: FileFacts) -> str | None:
        """The digest of an object's bytes, from a local copy of just these if there is one; now there is.

        None if another machine moved the object away.
        """
        copy = self._copies(name)
        note = self._note(name)
        try:
            known = _Copy.model_validate_json(note.read_bytes())
            if known == _Copy(etag=etag, sha256=wanted.sha256) and files.sha256_cached(copy) == wanted.sha256:
                return wanted.sha256
        except (OSError, ValidationError):
            pass  # it is fetched anew
        copy.parent.mkdir(parents=True, exist_ok=True)
        files.check_free_space(copy.parent, wanted.bytes)
        with self._errors():
            try:
                with files.atomic_write(copy) as aside:
                    self._fs.get_file(self._path(name), str(aside))
            except FileNotFoundError as error:
                if _code(error) != NO_OBJECT:
                    raise
                return None
        sha256 = files.sha256_cached(copy)
        files.write_bytes(note, _Copy(etag=etag, sha256=sha256).model_dump_json().encode())
        return sha256

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what the bucket's side says into one line without anything secret."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except PermissionError:
            raise InputError(f"store {self.location}: access denied; {LOGIN}") from None
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in files.DISK_FULL:
                raise  # this machine's
            if _code(error) == NO_BUCKET:
                raise InputError(f"store {self.location}: there is no such bucket; make it, or give another") from None
            words = _code(error) or type(error).__name__
            raise EnvironmentFailure(f"store {self.location}: {words}; {LOGIN}, or try again later") from None


def _raise_without_bucket(error: FileNotFoundError) -> None:
    """An object may be missing; the bucket may not."""
    if _code(error) == NO_BUCKET:
        raise error


def _code(error: BaseException) -> str:
    """The code that S3 gave for an error, as far as there is one."""
    response = getattr(error.__cause__ or error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _file_system() -> Any:
    """The connection; s3fs itself keeps one for each process and thread."""
    try:
        import s3fs
    except ImportError:
        raise InputError("store: s3:// needs s3fs; install cifar-flow with its extra: pip install '.[s3]'") from None
    patience = {"retries": {"total_max_attempts": 3, "mode": "standard"}, "connect_timeout": 5, "read_timeout": 20}
    connection = s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=patience)
    connection.retries = 1  # botocore's own are enough
    return connection
