"""What has arrived of a file so far: it survives failures and kills, and the next call goes on from there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime.files import digest_of, disk_errors, pretty_json, sha256_of, sync, write_bytes


class Origin(FrozenModel):
    """Whose bytes these are: the URL as a digest, because it may carry a password, and the server's ETag or date."""

    url_digest: str
    validator: str


@dataclass(frozen=True)
class PartialFile:
    """The bytes in `<target>.part` and their origin in `<target>.part.json`; one process at a time may add to them."""

    target: Path

    @property
    def path(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def note(self) -> Path:
        return self.target.with_name(f"{self.target.name}.part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def sha256(self) -> str:
        return sha256_of(self.path)

    def drop(self) -> None:
        # The bytes go first: a kill in between must leave no bytes under another's origin.
        self.path.unlink(missing_ok=True)
        self.forget_origin()

    def note_origin(self, url: str, validator: str) -> None:
        with disk_errors(self.target.parent):
            write_bytes(self.note, pretty_json(Origin(url_digest=digest_of(url), validator=validator).model_dump()))

    def forget_origin(self) -> None:
        self.note.unlink(missing_ok=True)

    def validator(self, url: str) -> str:
        """The ETag or date under which this URL gave the bytes, or '' if it is not known to have given them."""
        try:
            origin = Origin.model_validate_json(self.note.read_bytes())
        except (OSError, ValueError):
            return ""
        return origin.validator if origin.url_digest == digest_of(url) else ""

    @contextmanager
    def appending(self) -> Iterator[BinaryIO]:
        with disk_errors(self.target.parent), self.path.open("ab") as file:
            yield file

    def publish(self) -> None:
        """Give the finished file its name."""
        with disk_errors(self.target.parent):
            sync(self.path)
            self.path.replace(self.target)
            self.forget_origin()
            sync(self.target.parent)
