"""The store, in a folder and in a bucket: built once, verified at each use, healed, and never changed under a name."""

import json
import pickle
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from killing import go_on, started
from places import (
    BucketPlace,
    Place,
    delete,
    empty,
    flip_a_bit,
    lengthen,
    overwrite,
    payload_of,
    truncate,
)
from tiny_artifacts import quiet, stage_of

from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.artifact import ArtifactRef, Key, Log, Stage
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import MANIFEST

Spoil = Callable[[Place, str], None]
PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def counted(stage: Stage) -> tuple[Stage, list[Path]]:
    """The same stage, and a list that grows with each build."""
    builds: list[Path] = []

    def build(folder: Path, log: Log) -> None:
        builds.append(folder)
        stage.build(folder, log)

    return Stage(stage.key, build), builds


def never_the_same(**ingredients: Any) -> Stage:
    """A stage whose every build leaves other bytes, as a GPU may."""
    numbers = count()

    def build(folder: Path, _: Log) -> None:
        (folder / "a.bin").write_bytes(b"build %d" % next(numbers))

    return Stage(Key(name="x", **ingredients), build)


def set_aside(place: Place, ref: ArtifactRef) -> dict[str, bytes]:
    """The files of a version that was found damaged."""
    found = place.all(f".quarantine/{ref.name}-{ref.version}-")
    return {name.rpartition("/")[2]: content for name, content in found.items()}


def keep(store: Store, stage: Stage, *, refresh: bool = False) -> ArtifactRef:
    """Have a stage's artifact in a run."""
    with recording_run(store, {}, {}, quiet) as run:
        run.keep(run.store.get_or_create(stage, quiet, refresh=refresh).ref)
    return run.record.artifacts[stage.key.name]


# Reuse


def test_an_artifact_is_built_once_and_then_reused(place: Place, log: list[str]) -> None:
    stage, builds = counted(stage_of(PAYLOAD))

    made = place.open().get_or_create(stage, log.append)
    again = place.open().get_or_create(stage, log.append)

    assert len(builds) == 1
    assert (made.reused, again.reused) == (False, True)
    assert made.ref == again.ref
    assert again.message == f"reused x/{stage.key.version}"
    assert payload_of(place.open(), made.ref) == PAYLOAD
    assert log == ["x runs for the first time"]


def test_a_version_is_its_payload_and_its_manifest(place: Place, store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref

    held = place.files(ref)

    assert json.loads(held.pop(MANIFEST))["sha256"] == ref.sha256
    assert held == PAYLOAD


def test_another_store_makes_the_same_reference(store: Store, tmp_path: Path) -> None:
    elsewhere = open_store(tmp_path / "elsewhere").for_run("another run")

    refs = [each.get_or_create(stage_of(PAYLOAD), quiet).ref for each in (store, elsewhere)]

    assert refs[0] == refs[1]


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (True, 1)])
def test_values_that_python_calls_equal_are_told_apart(store: Store, before: Any, after: Any) -> None:
    store.get_or_create(stage_of(PAYLOAD, settings={"rate": before}), quiet)

    assert not store.get_or_create(stage_of(PAYLOAD, settings={"rate": after}), quiet).reused


def test_of_equally_near_versions_the_newest_is_told_from(store: Store, log: list[str]) -> None:
    for seed in (1, 2, 3, 4):
        store.get_or_create(stage_of(PAYLOAD, settings={"seed": seed}), log.append)

    assert log[-1] == "x runs again: seed 3 → 4"


def test_the_manifest_says_which_run_made_it(store: Store) -> None:
    ref = store.for_run("tonight").get_or_create(stage_of(PAYLOAD), quiet).ref

    manifest = store.manifest(ref.name, ref.version)

    assert manifest is not None
    assert manifest.made.run == "tonight"


def test_the_manifest_of_the_first_that_made_the_same_bytes_is_found(store: Store) -> None:
    first = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    again = store.get_or_create(stage_of(PAYLOAD), quiet, refresh=True).ref

    manifest = store.first_with_same_bytes(again)

    assert manifest is not None
    assert manifest.ref == first != again


# Damage

DAMAGES: list[tuple[Spoil, str]] = [
    (flip_a_bit, "b.bin is damaged: its bytes are not those that were stored"),
    (truncate, "b.bin is damaged: expected 14 bytes, got 13"),
    (lengthen, "b.bin is damaged: expected 14 bytes, got 15"),
    (delete, "b.bin is missing"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_bytes_are_noticed_and_made_again(
    place: Place, store: Store, log: list[str], damage: Spoil, words: str
) -> None:
    stage, builds = counted(stage_of(PAYLOAD))
    ref = store.get_or_create(stage, quiet).ref
    damage(place, place.name_of(ref, "b.bin"))

    healed = store.get_or_create(stage, log.append)

    assert log == [f"x runs again: {ref}: {words}"]
    assert (healed.reused, healed.ref, len(builds)) == (False, ref, 2)
    assert payload_of(store, ref) == PAYLOAD
    assert store.get_or_create(stage, quiet).reused


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_bytes_are_never_opened(place: Place, store: Store, damage: Spoil, words: str) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    store.open(ref)
    damage(place, place.name_of(ref, "b.bin"))

    with pytest.raises(DamagedArtifact) as raised:
        store.open(ref)

    assert str(raised.value) == f"{ref}: {words}; run again to have it made anew"


def test_an_artifact_that_is_not_there_is_not_opened(store: Store) -> None:
    with pytest.raises(DamagedArtifact, match="x/0123456789ab is not in the store"):
        store.open(ArtifactRef(name="x", version="0123456789ab", sha256="ab"))


def test_a_version_with_other_bytes_than_the_reference_says_is_not_opened(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref

    with pytest.raises(DamagedArtifact, match="holds other bytes than those asked for"):
        store.open(ref.model_copy(update={"sha256": "ab"}))


def test_a_file_that_the_manifest_does_not_know_does_no_harm(place: Place, store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    place.write(f"{ref}/.DS_Store", b"a file manager was here")

    assert store.get_or_create(stage_of(PAYLOAD), quiet).reused
    assert payload_of(store, ref) == PAYLOAD


def test_healing_with_the_same_bytes_puts_the_damaged_file_aside(place: Place, store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    whole = place.files(ref)
    flip_a_bit(place, place.name_of(ref, "b.bin"))
    damaged = place.files(ref)["b.bin"]

    store.get_or_create(stage_of(PAYLOAD), quiet)

    assert place.files(ref) == whole
    [(name, aside)] = place.all(".quarantine/").items()
    assert name.startswith(f".quarantine/x-{ref.version}-b.bin-")
    assert aside == damaged


def test_healing_with_other_bytes_is_a_new_attempt(place: Place, store: Store) -> None:
    stage = never_the_same()
    old = store.get_or_create(stage, quiet).ref
    flip_a_bit(place, place.name_of(old, "a.bin"))
    damaged = place.files(old)

    new = store.get_or_create(stage, quiet)

    assert new.ref.version == stage.key.with_attempt(1).version
    assert new.ref.sha256 != old.sha256
    assert payload_of(store, new.ref) == {"a.bin": b"build 1"}
    assert place.files(old) == {}
    assert set_aside(place, old) == damaged
    assert store.get_or_create(stage, quiet).ref == new.ref


# Refresh


def test_refresh_makes_a_new_attempt_that_is_used_from_then_on(store: Store, log: list[str]) -> None:
    stage = never_the_same()
    first = store.get_or_create(stage, quiet).ref

    second = store.get_or_create(stage, log.append, refresh=True)
    third = store.get_or_create(stage, quiet, refresh=True)

    assert log == [f"x runs again: asked for, in place of {first}"]
    assert [second.ref.version, third.ref.version] == [stage.key.with_attempt(n).version for n in (1, 2)]
    again = store.get_or_create(stage, quiet)
    assert (again.reused, again.ref) == (True, third.ref)
    held = [payload_of(store, ref)["a.bin"] for ref in (first, second.ref, third.ref)]
    assert held == [b"build 0", b"build 1", b"build 2"]


def test_refresh_makes_a_new_attempt_of_the_same_bytes_too(store: Store) -> None:
    first = store.get_or_create(stage_of(PAYLOAD), quiet).ref

    second = store.get_or_create(stage_of(PAYLOAD), quiet, refresh=True).ref

    assert second.version != first.version
    assert second.sha256 == first.sha256


# Lost manifests


def cut(place: Place, name: str) -> None:
    place.write(name, place.read(name)[:200])


def edit(path: str, value: object) -> Spoil:
    """A manifest in which the value at a path is another."""

    def edited(place: Place, name: str) -> None:
        whole = inner = place.json(name)
        *outer, last = path.split("/")
        for step in outer:
            inner = inner[step]
        inner[last] = value
        place.write(name, json.dumps(whole).encode())

    edited.__name__ = path
    return edited


def take_anothers(place: Place, name: str) -> None:
    other = place.open().get_or_create(stage_of({"a.bin": b"other"}, settings={"epochs": 3}), quiet).ref
    place.write(name, place.read(f"{other}/{MANIFEST}"))


def skip_a_deleted_manifest(place: Place, spoil: Spoil) -> None:
    if spoil is delete and isinstance(place, BucketPlace):
        pytest.skip("in a bucket, a payload without a manifest is on its way: its version may be made again")


@pytest.mark.parametrize(
    "spoil",
    [
        delete,
        cut,
        empty,
        overwrite,
        take_anothers,
        edit("sha256", "ab"),
        edit("version", "0123456789ab"),
        edit("key/settings", {"epochs": 3}),
        edit("files/a.bin/sha256", "ab"),
        edit("files", {}),
        edit("extra", 1),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_spoilt_manifest_never_lets_other_bytes_appear_under_its_version(
    place: Place, store: Store, log: list[str], spoil: Spoil
) -> None:
    skip_a_deleted_manifest(place, spoil)
    stage = never_the_same()
    old = store.get_or_create(stage, quiet).ref
    spoil(place, f"{old}/{MANIFEST}")

    new = store.get_or_create(stage, log.append)

    assert log == [f"x runs again: {old}: its manifest is lost or damaged"]
    assert not new.reused
    assert new.ref.version != old.version
    assert set_aside(place, old)["a.bin"] == b"build 0"
    assert payload_of(store, new.ref) == {"a.bin": b"build 1"}
    assert store.get_or_create(stage, quiet).ref == new.ref


@pytest.mark.parametrize("spoil", [delete, edit("files/a.bin/bytes", 5)], ids=lambda spoil: spoil.__name__)
def test_what_is_made_in_place_of_a_spoilt_manifest_can_be_opened(place: Place, store: Store, spoil: Spoil) -> None:
    old = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    spoil(place, f"{old}/{MANIFEST}")

    new = store.get_or_create(stage_of(PAYLOAD), quiet).ref

    assert payload_of(store, new) == PAYLOAD


@pytest.mark.parametrize("spoil", [delete, cut])
def test_what_a_run_has_is_put_back_under_its_version_when_its_manifest_is_spoilt_however_often(
    place: Place, store: Store, log: list[str], spoil: Spoil
) -> None:
    skip_a_deleted_manifest(place, spoil)
    old = keep(store, stage_of(PAYLOAD))
    for _ in range(2):
        spoil(place, f"{old}/{MANIFEST}")
        log.clear()

        assert store.get_or_create(stage_of(PAYLOAD), log.append).ref == old

        assert log == [f"x runs again: {old}: its manifest is lost or damaged"]
        assert payload_of(store, old) == PAYLOAD
        assert store.versions("x") == [old.version]
        assert set_aside(place, old)["a.bin"] == PAYLOAD["a.bin"]


@pytest.mark.parametrize("spoil", [delete, cut])
def test_an_attempt_whose_manifest_is_lost_is_not_overwritten(place: Place, store: Store, spoil: Spoil) -> None:
    skip_a_deleted_manifest(place, spoil)
    stage = never_the_same()
    store.get_or_create(stage, quiet)
    lost = store.get_or_create(stage, quiet, refresh=True).ref
    spoil(place, f"{lost}/{MANIFEST}")

    newest = store.get_or_create(stage, quiet, refresh=True).ref

    assert newest.version == stage.key.with_attempt(2).version
    assert set_aside(place, lost)["a.bin"] == b"build 1"
    assert place.files(lost) == {}


# Lost versions


def test_a_lost_version_of_a_run_does_not_come_back_with_other_bytes(place: Place, store: Store) -> None:
    stage = never_the_same()
    old = keep(store, stage)
    place.lose(old)

    new = keep(store, stage)

    assert new.version == stage.key.with_attempt(1).version
    assert payload_of(store, new) == {"a.bin": b"build 1"}
    with pytest.raises(DamagedArtifact, match=f"{old} is not in the store"):
        store.open(old)
    assert store.get_or_create(stage, quiet).ref == new


def test_a_lost_version_of_a_run_comes_back_with_the_same_bytes(place: Place, store: Store) -> None:
    stage = stage_of(PAYLOAD)
    old = keep(store, stage)
    place.lose(old)

    assert keep(store, stage) == old
    assert payload_of(store, old) == PAYLOAD


def test_no_attempt_that_a_run_has_is_made_otherwise_when_all_are_lost(place: Place, store: Store) -> None:
    stage = never_the_same()
    lost = [keep(store, stage), keep(store, stage, refresh=True)]
    for ref in lost:
        place.lose(ref)

    assert keep(store, stage).version == stage.key.with_attempt(2).version


# Elsewhere


def test_a_store_travels_to_another_process(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    sent = pickle.dumps(store.for_run("tonight"))
    receive = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).for_run('tonight').open"
    receive += "(pickle.loads(bytes.fromhex(sys.argv[2]))))"

    with started(receive, sent.hex(), pickle.dumps(ref).hex()) as process:
        assert go_on(process) == [str(store.open(ref))]

    assert pickle.loads(sent) == store.for_run("tonight")  # noqa: S301 - our own bytes
