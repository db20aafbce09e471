"""The store, in a folder and in a bucket: built once, checked at each use, repaired, and never changed."""

import json
import pickle
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from killing import python_process, resume
from places import (
    BucketPlace,
    Place,
    delete,
    empty,
    flip_a_bit,
    lengthen,
    overwrite,
    read_payload,
    truncate,
)
from tiny_artifacts import build_of, refreshing

from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.artifact import ArtifactRef, Build, Key
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import MANIFEST

Damage = Callable[[Place, str], None]
PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def counted(build: Build) -> tuple[Build, list[Path]]:
    """The same build, and a list that grows with each call."""
    builds: list[Path] = []

    def fill(folder: Path) -> None:
        builds.append(folder)
        build.fill(folder)

    return Build(build.key, fill), builds


def never_the_same(**ingredients: Any) -> Build:
    """A build that gives other bytes each time, as a GPU may."""
    numbers = count()

    def fill(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"build %d" % next(numbers))

    return Build(Key(name="x", **ingredients), fill)


def quarantined_files(place: Place, ref: ArtifactRef) -> dict[str, bytes]:
    """The files of a version in the quarantine."""
    found = place.all(f".quarantine/{ref.name}-{ref.version}-")
    return {name.rpartition("/")[2]: content for name, content in found.items()}


def run_with(store: Store, build: Build, *, refresh: bool = False) -> ArtifactRef:
    """Get an artifact in a run."""
    with recording_run(store, {}, {}) as run:
        run.add_artifacts(refreshing(run.store, refresh).get_or_create(build).ref)
    return run.record.artifacts[build.key.name]


# Reuse


def test_an_artifact_is_built_once_and_then_a_cache_hit(place: Place, log: list[str]) -> None:
    build, builds = counted(build_of(PAYLOAD))

    first = place.open().get_or_create(build)
    again = place.open().get_or_create(build)

    assert len(builds) == 1
    assert (first.is_cache_hit, again.is_cache_hit) == (False, True)
    assert first.ref == again.ref
    assert again.message == f"cache hit x/{build.key.version}"
    assert read_payload(place.open(), first.ref) == PAYLOAD
    assert log == ["x: building for the first time"]


def test_a_version_holds_its_payload_and_its_manifest(place: Place, store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref

    held = place.files(ref)

    assert json.loads(held.pop(MANIFEST))["sha256"] == ref.sha256
    assert held == PAYLOAD


def test_another_store_gives_the_same_reference(store: Store, tmp_path: Path) -> None:
    elsewhere = open_store(tmp_path / "elsewhere").for_run("another run")

    refs = [each.get_or_create(build_of(PAYLOAD)).ref for each in (store, elsewhere)]

    assert refs[0] == refs[1]


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (True, 1)])
def test_values_that_are_equal_in_python_give_different_versions(store: Store, before: Any, after: Any) -> None:
    store.get_or_create(build_of(PAYLOAD, settings={"rate": before}))

    assert not store.get_or_create(build_of(PAYLOAD, settings={"rate": after})).is_cache_hit


def test_the_reason_compares_with_the_newest_of_similar_versions(store: Store, log: list[str]) -> None:
    for seed in (1, 2, 3, 4):
        store.get_or_create(build_of(PAYLOAD, settings={"seed": seed}))

    assert log[-1] == "x: rebuilding, seed changed from 3 to 4"


def test_a_manifest_names_its_run(store: Store) -> None:
    ref = store.for_run("tonight").get_or_create(build_of(PAYLOAD)).ref

    manifest = store.manifest(ref.name, ref.version)

    assert manifest is not None
    assert manifest.made.run == "tonight"


def test_the_first_version_with_the_same_bytes_is_found(store: Store) -> None:
    first = store.get_or_create(build_of(PAYLOAD)).ref
    again = refreshing(store).get_or_create(build_of(PAYLOAD)).ref

    manifest = store.first_with_same_bytes(again)

    assert manifest is not None
    assert manifest.ref == first != again


# Damage

DAMAGES: list[tuple[Damage, str]] = [
    (flip_a_bit, "b.bin is damaged: its bytes are not those that were stored"),
    (truncate, "b.bin is damaged: expected 14 bytes, got 13"),
    (lengthen, "b.bin is damaged: expected 14 bytes, got 15"),
    (delete, "b.bin is missing"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_bytes_are_noticed_and_rebuilt(
    place: Place, store: Store, log: list[str], damage: Damage, words: str
) -> None:
    build, builds = counted(build_of(PAYLOAD))
    ref = store.get_or_create(build).ref
    damage(place, place.name_of(ref, "b.bin"))

    rebuilt = store.get_or_create(build)

    assert log[1:] == [f"x: rebuilding, {ref}: {words}"]
    assert (rebuilt.is_cache_hit, rebuilt.ref, len(builds)) == (False, ref, 2)
    assert read_payload(store, ref) == PAYLOAD
    assert store.get_or_create(build).is_cache_hit


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_bytes_are_never_opened(place: Place, store: Store, damage: Damage, words: str) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    store.open(ref)
    damage(place, place.name_of(ref, "b.bin"))

    with pytest.raises(DamagedArtifact) as raised:
        store.open(ref)

    assert str(raised.value) == f"{ref}: {words}; run again to rebuild it"


def test_a_missing_artifact_is_not_opened(store: Store) -> None:
    with pytest.raises(DamagedArtifact, match="x/0123456789ab is not in the store"):
        store.open(ArtifactRef(name="x", version="0123456789ab", sha256="ab"))


def test_a_version_with_another_digest_is_not_opened(store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref

    with pytest.raises(DamagedArtifact, match="holds other bytes than expected"):
        store.open(ref.model_copy(update={"sha256": "ab"}))


def test_a_file_that_is_not_in_the_manifest_does_no_harm(place: Place, store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    place.write(f"{ref}/.DS_Store", b"a file manager was here")

    assert store.get_or_create(build_of(PAYLOAD)).is_cache_hit
    assert read_payload(store, ref) == PAYLOAD


def test_a_rebuild_with_the_same_bytes_quarantines_the_file(place: Place, store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    whole = place.files(ref)
    flip_a_bit(place, place.name_of(ref, "b.bin"))
    damaged = place.files(ref)["b.bin"]

    store.get_or_create(build_of(PAYLOAD))

    assert place.files(ref) == whole
    [(name, aside)] = place.all(".quarantine/").items()
    assert name.startswith(f".quarantine/x-{ref.version}-b.bin-")
    assert aside == damaged


def test_a_rebuild_with_other_bytes_is_a_new_attempt(place: Place, store: Store) -> None:
    build = never_the_same()
    old = store.get_or_create(build).ref
    flip_a_bit(place, place.name_of(old, "a.bin"))
    damaged = place.files(old)

    new = store.get_or_create(build)

    assert new.ref.version == build.key.with_attempt(1).version
    assert new.ref.sha256 != old.sha256
    assert read_payload(store, new.ref) == {"a.bin": b"build 1"}
    assert place.files(old) == {}
    assert quarantined_files(place, old) == damaged
    assert store.get_or_create(build).ref == new.ref


# Refresh


def test_a_refresh_builds_a_new_attempt_that_is_used_from_then_on(store: Store, log: list[str]) -> None:
    build = never_the_same()
    first = store.get_or_create(build).ref

    second = refreshing(store).get_or_create(build)
    third = refreshing(store).get_or_create(build)

    assert log == ["x: building for the first time", *["x: rebuilding, --refresh asked for it"] * 2]
    assert [second.ref.version, third.ref.version] == [build.key.with_attempt(n).version for n in (1, 2)]
    again = store.get_or_create(build)
    assert (again.is_cache_hit, again.ref) == (True, third.ref)
    held = [read_payload(store, ref)["a.bin"] for ref in (first, second.ref, third.ref)]
    assert held == [b"build 0", b"build 1", b"build 2"]


def test_a_refresh_with_the_same_bytes_is_a_new_attempt_too(store: Store) -> None:
    first = store.get_or_create(build_of(PAYLOAD)).ref

    second = refreshing(store).get_or_create(build_of(PAYLOAD)).ref

    assert second.version != first.version
    assert second.sha256 == first.sha256


# Lost manifests


def cut(place: Place, name: str) -> None:
    place.write(name, place.read(name)[:200])


def edit(path: str, value: object) -> Damage:
    """Damage that changes one value of a manifest."""

    def edited(place: Place, name: str) -> None:
        whole = inner = place.json(name)
        *outer, last = path.split("/")
        for step in outer:
            inner = inner[step]
        inner[last] = value
        place.write(name, json.dumps(whole).encode())

    edited.__name__ = path
    return edited


def swap(place: Place, name: str) -> None:
    other = place.open().get_or_create(build_of({"a.bin": b"other"}, settings={"epochs": 3})).ref
    place.write(name, place.read(f"{other}/{MANIFEST}"))


def skip_if_undetectable(place: Place, damage: Damage) -> None:
    if damage is delete and isinstance(place, BucketPlace):
        pytest.skip("in a bucket, a payload without a manifest is no version")


@pytest.mark.parametrize(
    "damage",
    [
        delete,
        cut,
        empty,
        overwrite,
        swap,
        edit("sha256", "ab"),
        edit("version", "0123456789ab"),
        edit("key/settings", {"epochs": 3}),
        edit("files/a.bin/sha256", "ab"),
        edit("files", {}),
        edit("extra", 1),
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_manifest_never_gives_a_version_other_bytes(
    place: Place, store: Store, log: list[str], damage: Damage
) -> None:
    skip_if_undetectable(place, damage)
    build = never_the_same()
    old = store.get_or_create(build).ref
    damage(place, f"{old}/{MANIFEST}")

    new = store.get_or_create(build)

    assert log[-1] == f"x: rebuilding, {old}: its manifest is lost or damaged"
    assert not new.is_cache_hit
    assert new.ref.version != old.version
    assert quarantined_files(place, old)["a.bin"] == b"build 0"
    assert read_payload(store, new.ref) == {"a.bin": b"build 1"}
    assert store.get_or_create(build).ref == new.ref


@pytest.mark.parametrize("damage", [delete, edit("files/a.bin/bytes", 5)], ids=lambda damage: damage.__name__)
def test_the_rebuild_after_a_damaged_manifest_can_be_opened(place: Place, store: Store, damage: Damage) -> None:
    old = store.get_or_create(build_of(PAYLOAD)).ref
    damage(place, f"{old}/{MANIFEST}")

    new = store.get_or_create(build_of(PAYLOAD)).ref

    assert read_payload(store, new) == PAYLOAD


@pytest.mark.parametrize("damage", [delete, cut])
def test_a_runs_version_is_restored_after_each_damaged_manifest(
    place: Place, store: Store, log: list[str], damage: Damage
) -> None:
    skip_if_undetectable(place, damage)
    old = run_with(store, build_of(PAYLOAD))
    for _ in range(2):
        damage(place, f"{old}/{MANIFEST}")
        log.clear()

        assert store.get_or_create(build_of(PAYLOAD)).ref == old

        assert log == [f"x: rebuilding, {old}: its manifest is lost or damaged"]
        assert read_payload(store, old) == PAYLOAD
        assert store.versions("x") == [old.version]
        assert quarantined_files(place, old)["a.bin"] == PAYLOAD["a.bin"]


@pytest.mark.parametrize("damage", [delete, cut])
def test_an_attempt_without_its_manifest_is_not_overwritten(place: Place, store: Store, damage: Damage) -> None:
    skip_if_undetectable(place, damage)
    build = never_the_same()
    store.get_or_create(build)
    lost = refreshing(store).get_or_create(build).ref
    damage(place, f"{lost}/{MANIFEST}")

    newest = refreshing(store).get_or_create(build).ref

    assert newest.version == build.key.with_attempt(2).version
    assert quarantined_files(place, lost)["a.bin"] == b"build 1"
    assert place.files(lost) == {}


# Lost versions


def test_a_runs_lost_version_never_comes_back_with_other_bytes(place: Place, store: Store) -> None:
    build = never_the_same()
    old = run_with(store, build)
    place.lose(old)

    new = run_with(store, build)

    assert new.version == build.key.with_attempt(1).version
    assert read_payload(store, new) == {"a.bin": b"build 1"}
    with pytest.raises(DamagedArtifact, match=f"{old} is not in the store"):
        store.open(old)
    assert store.get_or_create(build).ref == new


def test_a_runs_lost_version_comes_back_with_the_same_bytes(place: Place, store: Store) -> None:
    build = build_of(PAYLOAD)
    old = run_with(store, build)
    place.lose(old)

    assert run_with(store, build) == old
    assert read_payload(store, old) == PAYLOAD


def test_no_attempt_of_a_run_is_reused_for_other_bytes(place: Place, store: Store) -> None:
    build = never_the_same()
    lost = [run_with(store, build), run_with(store, build, refresh=True)]
    for ref in lost:
        place.lose(ref)

    assert run_with(store, build).version == build.key.with_attempt(2).version


# Elsewhere


def test_a_store_can_be_pickled(store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    sent = pickle.dumps(store.for_run("tonight"))
    receive = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).for_run('tonight').open"
    receive += "(pickle.loads(bytes.fromhex(sys.argv[2]))))"

    with python_process(receive, sent.hex(), pickle.dumps(ref).hex()) as process:
        assert resume(process) == [str(store.open(ref))]

    assert pickle.loads(sent) == store.for_run("tonight")  # noqa: S301 - our own bytes
