"""The partial file of an unfinished download, which the next download resumes."""

from pathlib import Path

from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime.files import digest_of, disk_errors, pretty_json, sync, write_bytes


class Origin(FrozenModel):
    """The URL of a partial file, as a digest because it may contain a password, and the server's ETag or date."""

    url_digest: str
    validator: str


class PartialFile:
    """The bytes in `<target>.part` and their origin in `<target>.part.json`; one process writes at a time."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self.origin_path = target.with_name(f"{target.name}.part.json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def delete(self) -> None:
        # The bytes first: a kill in between must not leave bytes with the origin of another URL.
        self.path.unlink(missing_ok=True)
        self.origin_path.unlink(missing_ok=True)

    def save_origin(self, url: str, validator: str) -> None:
        origin = Origin(url_digest=digest_of(url), validator=validator)
        write_bytes(self.origin_path, pretty_json(origin.model_dump()))

    def load_validator(self, url: str) -> str:
        """Return the ETag or date of the bytes if they came from this URL, otherwise ''."""
        try:
            origin = Origin.model_validate_json(self.origin_path.read_bytes())
        except (OSError, ValueError):
            return ""
        return origin.validator if origin.url_digest == digest_of(url) else ""

    def publish(self) -> None:
        """Rename the complete file to `target`."""
        with disk_errors(self.target.parent):
            sync(self.path)
            self.path.replace(self.target)
            self.origin_path.unlink(missing_ok=True)
            sync(self.target.parent)
