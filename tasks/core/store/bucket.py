"""A store in a bucket: the same objects behind an `s3://` URL, for runs on several machines.

The payload is uploaded first, into a folder named by its content, so the files of two builds never mix. The manifest
is uploaded last, and only if there is none. Locks work on one machine only. Credentials come from the environment, as
in AWS's own tools, and are never written anywhere.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.config import cache_folder
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.runtime import files
from tasks.core.store.artifact import FileFacts, Manifest
from tasks.core.store.storage import MANIFEST, QUARANTINE, Storage, manifest_name, timestamped

CHECK_LOGIN = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
NO_BUCKET = "NoSuchBucket"
CONDITION_FAILED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


@dataclass(frozen=True)
class Bucket(Storage):
    """Storage under an `s3://bucket/prefix`; payloads are copied to this machine and checked there."""

    location: str
    is_shared = True

    @property
    def local(self) -> Path:
        return cache_folder() / hashlib.sha256(self.location.encode()).hexdigest()[:12]

    def read(self, name: str) -> bytes | None:
        with self._errors(missing_ok=True):
            return bytes(self._fs.cat_file(self._path(name), max_concurrency=1))
        return None

    def read_all(self, names: Iterable[str]) -> dict[str, bytes]:
        paths = {self._path(name): name for name in names}
        if not paths:
            return {}
        with self._errors():
            results: dict[str, Any] = self._fs.cat(list(paths), on_error="return", max_concurrency=1)
            for result in results.values():
                if isinstance(result, Exception) and not isinstance(result, FileNotFoundError):
                    raise result
            return {paths[path]: result for path, result in results.items() if isinstance(result, bytes)}

    def write(self, name: str, content: bytes) -> None:
        with self._errors():
            self._fs.pipe_file(self._path(name), content)

    def put_file(self, name: str, source: Path) -> None:
        with self._errors():
            self._fs.put_file(str(source), self._path(name))

    def compare_and_swap(self, name: str, before: bytes | None, after: bytes) -> bool:
        path = self._path(name)
        with self._errors(missing_ok=before is not None):
            try:
                if before is None:
                    self._fs.pipe_file(path, after, mode="create")
                    return True
                etag = self._fs.info(path)["ETag"]
                if self._fs.cat_file(path, max_concurrency=1) != before:
                    return False
                self._fs.pipe_file(path, after, IfMatch=etag)
                return True
            except OSError as error:
                if not isinstance(error, FileExistsError) and _error_code(error) not in CONDITION_FAILED:
                    raise
                return self.read(name) == after  # the first try may have succeeded without its answer arriving
        return False

    def _children(self, folder: str) -> Iterator[tuple[str, str]]:
        for entry in self._list(folder):
            yield entry["name"].rpartition("/")[2], entry["type"]

    def partial_writes(self, folder: str) -> list[str]:  # noqa: ARG002
        return []

    def remove_partial_writes(self, name: str) -> None:
        """Nothing to do: objects appear complete."""

    def find_damage(
        self, folder: str, expected: Mapping[str, FileFacts], *, rehash: bool = False
    ) -> Iterator[tuple[str, str]]:
        entries = {entry["name"]: entry for entry in self._list(folder) if entry["type"] == "file"}
        for name, facts in expected.items():
            path = f"{folder}/{name}".lstrip("/")  # the store's root is a folder without a name
            if rehash:
                self._note(path).unlink(missing_ok=True)
            entry = entries.get(self._path(path))
            sha256 = self._download(path, entry["ETag"], facts) if entry else None
            if entry is None or sha256 is None:
                yield name, f"{name} is missing"
            elif sha256 != facts.sha256:
                yield name, f"{name} is damaged: {facts.describe_mismatch(entry['size'])}"

    def local_folder(self, folder: str) -> Path:
        return self.local / "copies" / folder

    def versions(self, name: str) -> list[str]:
        """A payload without a manifest is not a version: another machine may be uploading it."""
        parts = [path.removeprefix(self._path(name)).split("/") for path in self._objects(name)]
        return sorted(part[1] for part in parts if part[2:] == [MANIFEST])

    def payload_folder(self, manifest: Manifest) -> str:
        return f"{manifest.name}/{manifest.version}/{manifest.sha256[:12]}"

    def publish(self, manifest: Manifest, content: bytes, staging: Path) -> bool:
        for name in manifest.files:
            self.put_file(f"{self.payload_folder(manifest)}/{name}", staging / name)
        return self.compare_and_swap(manifest_name(manifest.name, manifest.version), None, content)

    def quarantine(self, name: str, label: str) -> None:
        target = self._path(f"{QUARANTINE}/{timestamped(label)}")
        for path in self._objects(name):
            with self._errors(missing_ok=True):  # another machine may have moved it
                self._fs.cp_file(path, target + path.removeprefix(self._path(name)))
                self._fs.rm_file(path)

    def delete(self, folder: str) -> None:
        with self._errors():
            self._fs.rm_file(self._path(f"{folder}/{MANIFEST}"))
            for path in self._objects(folder):
                self._fs.rm_file(path)
        shutil.rmtree(self.local_folder(folder), ignore_errors=True)

    def bytes_in(self, folder: str) -> int:
        return sum(entry["size"] for entry in self._objects(folder).values())

    def _note(self, name: str) -> Path:
        """The file with the ETag and the digest of an object's local copy."""
        copy = self.local_folder(name)
        return copy.with_name(f".{copy.name}.copy")

    @property
    def _fs(self) -> Any:
        """The connection; s3fs itself caches one for each process and thread."""
        try:
            import s3fs
        except ImportError:
            advice = "install cifar-flow with its extra: pip install -e '.[s3]'"
            raise InputError("store: s3:// needs s3fs", advice=advice) from None
        limits = {"retries": {"total_max_attempts": 3, "mode": "standard"}, "connect_timeout": 5, "read_timeout": 20}
        connection = s3fs.S3FileSystem(use_listings_cache=False, config_kwargs=limits)
        connection.retries = 1  # botocore has retries of its own
        return connection

    def _path(self, name: str) -> str:
        return f"{self.location.removeprefix('s3://')}/{name}".rstrip("/")

    def _objects(self, name: str) -> dict[str, Any]:
        """The object of that name, or every object under that folder, by path."""
        path = self._path(name)
        with self._errors():
            entries: dict[str, Any] = self._fs.find(path, detail=True)
        return {
            each: entry
            for each, entry in entries.items()
            if entry["type"] == "file" and (each == path or each.startswith(f"{path}/"))
        }

    def _list(self, folder: str) -> list[dict[str, Any]]:
        """Name, type, size and ETag of everything directly in a folder."""
        path = self._path(folder)
        with self._errors(missing_ok=True):
            return [entry for entry in self._fs.ls(path, detail=True) if entry["name"] != path]
        return []

    def _download(self, name: str, etag: str, expected: FileFacts) -> str | None:
        """Have a local copy of an object; the digest of its bytes, or None if another machine moved the object."""
        copy, note = self.local_folder(name), self._note(name)
        with suppress(OSError):  # there is no usable copy
            is_current = note.read_bytes() == _note_content(etag, expected.sha256)
            if is_current and files.sha256_cached(copy) == expected.sha256:
                return expected.sha256
        copy.parent.mkdir(parents=True, exist_ok=True)
        files.check_free_space(copy.parent, expected.bytes)
        is_downloaded = False
        with self._errors(missing_ok=True), files.atomic_write(copy) as partial:
            self._fs.get_file(self._path(name), str(partial))
            is_downloaded = True
        if not is_downloaded:
            return None
        sha256 = files.sha256_cached(copy)
        files.write_bytes(note, _note_content(etag, sha256))
        return sha256

    @contextmanager
    def _errors(self, *, missing_ok: bool = False) -> Iterator[None]:
        """Report the server's errors on one line without any secret; end the block at a missing object if allowed."""
        from botocore.exceptions import BotoCoreError, ClientError

        what = f"store {self.location}"
        try:
            yield
        except PermissionError:
            raise InputError(f"{what}: access denied", advice=CHECK_LOGIN) from None
        except (BotoCoreError, ClientError, OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in files.DISK_FULL:
                raise  # this machine's disk
            if _error_code(error) == NO_BUCKET:
                raise InputError(f"{what}: there is no such bucket", advice="create it, or give another") from None
            if missing_ok and isinstance(error, FileNotFoundError):
                return
            problem = _error_code(error) or type(error).__name__
            raise EnvironmentFailure(f"{what}: {problem}", advice=f"{CHECK_LOGIN}, or try again later") from None


def _note_content(etag: str, sha256: str) -> bytes:
    return files.canonical_json({"etag": etag, "sha256": sha256}).encode()


def _error_code(error: BaseException) -> str:
    response = getattr(error.__cause__ or error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
