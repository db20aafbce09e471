"""What an artifact is: the key its version follows from, the manifest that vouches for it, the stage that makes it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import files

Log = Callable[[str], None]
LONGEST_VALUES = 60
MOST_DIFFERENCES = 8


class ArtifactRef(FrozenModel):
    """Which artifact, in which version, and the digest of its content; all that travels between tasks."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


class Key(FrozenModel):
    """All that an artifact's bytes follow from, each ingredient by name so that a miss can be explained.

    `inputs` are content digests, so equal bytes count as equal, whatever made them. `attempt` grows when the same key
    is made again on purpose, or came out with other bytes.
    """

    name: str
    inputs: dict[str, str] = {}
    settings: dict[str, JsonValue] = {}
    code: dict[str, str] = {}
    environment: dict[str, JsonValue] = {}
    attempt: int = 0

    @property
    def version(self) -> str:
        return files.digest_of(self.model_dump())[:12]

    def with_attempt(self, attempt: int) -> "Key":
        return self.model_copy(update={"attempt": attempt})


class FileFacts(FrozenModel):
    bytes: int
    sha256: str

    def describe_mismatch(self, size: int) -> str:
        """What is wrong with a file of another digest, from its size."""
        if size != self.bytes:
            return f"expected {self.bytes:,} bytes, got {size:,}"
        return "its bytes are not those that were stored"


class Provenance(FrozenModel):
    """When, where, with what and for how long an artifact was made: facts that its bytes do not depend on."""

    at: str
    seconds: float
    run: str | None
    host: str
    device: str
    versions: dict[str, str]


class Manifest(FrozenModel):
    """What a version holds and what it was made from; written last, so that it vouches for the rest."""

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
        payload = {name: facts.sha256 for name, facts in self.files.items()}
        named = (self.name, self.version) == (self.key.name, self.key.version)
        return named and self.sha256 == content_digest(payload)


def content_digest(payload: Mapping[str, str]) -> str:
    """The digest of a whole payload, from the SHA-256 of each of its files by name."""
    return files.digest_of(dict(payload))


@dataclass(frozen=True)
class Stage:
    """One artifact to be had: its key, what fills a folder with its payload, its inputs, and the device that does.

    `task` names the work in the log.
    """

    key: Key
    build: Callable[[Path, Log], None]
    inputs: tuple[ArtifactRef, ...] = ()
    device: str = "cpu"
    task: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of a stage."""

    ref: ArtifactRef
    reused: bool
    message: str


def explain_miss(key: Key, earlier: Iterable[Manifest]) -> str | None:
    """The ingredients in which a key differs from the earlier version most like it; of equals, the newest.

    None if there is no earlier version.
    """
    wanted = ingredients(key)
    newest_first = reversed(list(earlier))
    found: list[list[str]] = [_differences(ingredients(manifest.key), wanted) for manifest in newest_first]
    nearest = min(found, key=len, default=None)
    if nearest is None:
        return None
    more = len(nearest) - MOST_DIFFERENCES
    return ", ".join(nearest[:MOST_DIFFERENCES]) + (f" and {more} more" if more > 0 else "")


def ingredients(key: Key) -> dict[tuple[str, str], JsonValue]:
    """Each ingredient by its kind and dotted name; `attempt` is no ingredient of its own."""
    groups: dict[str, Mapping[str, JsonValue]] = {
        "input": key.inputs,
        "setting": key.settings,
        "environment": key.environment,
        "code": key.code,
    }
    return {(kind, name): value for kind, group in groups.items() for name, value in _flat(group)}


def _flat(group: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, JsonValue]]:
    for name, value in group.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _differences(before: Mapping[tuple[str, str], JsonValue], after: Mapping[tuple[str, str], JsonValue]) -> list[str]:
    """What changed in words, in the order of the ingredients; values where they are short enough to be read."""
    said = [f"{_word(*ingredient)} removed" for ingredient in before if ingredient not in after]
    for ingredient, value in after.items():
        if ingredient not in before:
            said.append(f"{_word(*ingredient)} added")
        elif files.canonical_json(before[ingredient]) != files.canonical_json(value):
            values = f"{before[ingredient]} → {value}"
            is_digest = ingredient[0] in ("input", "code")
            shown = "changed" if is_digest or len(values) > LONGEST_VALUES else values
            said.append(f"{_word(*ingredient)} {shown}")
    return said


def _word(kind: str, name: str) -> str:
    return f"{kind} {name}" if kind in ("input", "code") else name
