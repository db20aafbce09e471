"""Artifacts: the key that defines a version, the manifest that describes it, and the reasons for a rebuild."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import files

MAX_VALUE_CHARS = 70
MAX_DIFFERENCES = 8


class ArtifactRef(FrozenModel):
    """A reference to one version and its content; the only thing that tasks pass to each other."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Key(FrozenModel):
    """Everything that an artifact's bytes depend on, each ingredient by name so that a miss can be explained.

    `inputs` are content digests: equal input bytes give the same key, whichever version holds them.
    """

    name: str
    inputs: dict[str, str] = {}
    settings: dict[str, JsonValue] = {}
    code: dict[str, str] = {}
    environment: dict[str, JsonValue] = {}
    # A version never changes its bytes, but a build may give other bytes (a GPU) or be repeated on request (--refresh).
    # The attempt number gives each such rebuild a version of its own. It is a part of the digest, and must stay one:
    # the versions in existing stores are named by it.
    attempt: int = 0

    @property
    def version(self) -> str:
        return files.digest_of(self.model_dump())[:12]

    def with_attempt(self, attempt: int) -> "Key":
        return self.model_copy(update={"attempt": attempt})


class FileFacts(FrozenModel):
    """Size and digest of one payload file."""

    bytes: int
    sha256: str

    def describe_mismatch(self, size: int) -> str:
        """Describe a file of another digest by its size."""
        if size != self.bytes:
            return f"expected {self.bytes:,} bytes, got {size:,}"
        return "its bytes are not those that were stored"


class Provenance(FrozenModel):
    """When, where and how an artifact was built: facts that its bytes do not depend on."""

    at: str
    seconds: float
    run: str | None
    host: str
    device: str
    versions: dict[str, str]


class Manifest(FrozenModel):
    """The files, the key and the inputs of a version; written last, so a version with a manifest is complete."""

    name: str
    version: str
    sha256: str
    key: Key
    inputs: tuple[ArtifactRef, ...]
    files: dict[str, FileFacts]
    made: Provenance

    @property
    def ref(self) -> ArtifactRef:
        return ArtifactRef(name=self.name, version=self.version, sha256=self.sha256)

    def is_consistent(self) -> bool:
        """Whether name, version and digest agree with the key and the files."""
        payload = {name: facts.sha256 for name, facts in self.files.items()}
        matches_key = (self.name, self.version) == (self.key.name, self.key.version)
        return matches_key and self.sha256 == content_digest(payload)


def content_digest(payload: Mapping[str, str]) -> str:
    """The digest of a payload, from the SHA-256 of each file by name."""
    return files.digest_of(dict(payload))


@dataclass(frozen=True)
class Build:
    """How to get one artifact: its key, its inputs, and the function that fills a folder with its payload."""

    key: Key
    fill: Callable[[Path], None]
    inputs: tuple[ArtifactRef, ...] = ()
    device: str = "cpu"
    task: str = ""
    label: str = ""  # names the build in log lines

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.task or self.key.name)


@dataclass(frozen=True)
class Outcome:
    """The artifact that a build asked for, and where it came from."""

    ref: ArtifactRef
    is_cache_hit: bool
    message: str


def explain_miss(key: Key, earlier: Iterable[Manifest]) -> str:
    """How a key differs from the most similar earlier version, the newest of several; empty if there is none."""
    after = ingredients(key)
    differences = [_differences(ingredients(manifest.key), after) for manifest in reversed(list(earlier))]
    nearest = min(differences, key=len, default=[])
    more = len(nearest) - MAX_DIFFERENCES
    return ", ".join(nearest[:MAX_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def ingredients(key: Key) -> dict[tuple[str, str], JsonValue]:
    """Each ingredient of a key but the attempt, by its kind and dotted name."""
    groups: dict[str, Mapping[str, JsonValue]] = {
        "input": key.inputs,
        "setting": key.settings,
        "environment": key.environment,
        "code": key.code,
    }
    return {(kind, name): value for kind, group in groups.items() for name, value in _flatten(group)}


def _flatten(group: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in group.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _differences(before: Mapping[tuple[str, str], JsonValue], after: Mapping[tuple[str, str], JsonValue]) -> list[str]:
    differences = [f"{_label(*ingredient)} removed" for ingredient in before if ingredient not in after]
    for ingredient, value in after.items():
        label = _label(*ingredient)
        if ingredient not in before:
            differences.append(f"{label} added")
        elif files.canonical_json(before[ingredient]) != files.canonical_json(value):
            values = f" from {before[ingredient]} to {value}"
            is_readable = ingredient[0] in ("setting", "environment") and len(values) <= MAX_VALUE_CHARS
            differences.append(f"{label} changed{values if is_readable else ''}")
    return differences


def _label(kind: str, name: str) -> str:
    return f"{kind} {name}" if kind in ("input", "code") else name
