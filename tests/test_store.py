"""The store: built once, verified at each use, healed, and whole after a kill at any step."""

import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from killing import go_on, killed, killed_at_every_step, next_line, started
from tiny_artifacts import quiet, stage_of

from tasks.core.artifact import ArtifactRef, Key, Log, Stage, why_made
from tasks.core.errors import ExpectedError, InputError
from tasks.core.store import MANIFEST, DamagedArtifact, Store, open_store

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(root)


@pytest.fixture
def log() -> list[str]:
    return []


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


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def payload_of(store: Store, ref: ArtifactRef) -> dict[str, bytes]:
    held = contents(store.open(ref))
    del held[MANIFEST]
    return held


def staged(store: Store) -> list[Path]:
    return list((store.work / "staging").glob("*"))


def versions(store: Store) -> dict[str, dict[str, bytes]]:
    """Every file of every version that the store has of x."""
    return {path.name: contents(path) for path in (store.root / "x").glob("*")}


# Reuse


def test_an_artifact_is_built_once_and_then_reused(root: Path, log: list[str]) -> None:
    stage, builds = counted(stage_of(PAYLOAD))

    made = open_store(root).get_or_create(stage, log.append)
    again = open_store(root).get_or_create(stage, log.append)

    assert len(builds) == 1
    assert (made.reused, again.reused) == (False, True)
    assert made.ref == again.ref
    assert again.message == f"reused x/{stage.key.version}"
    assert payload_of(open_store(root), made.ref) == PAYLOAD
    assert log == ["x is made: for the first time"]


def test_another_store_makes_the_same_reference(store: Store, tmp_path: Path) -> None:
    elsewhere = open_store(tmp_path / "elsewhere").for_run("another run")

    refs = [each.get_or_create(stage_of(PAYLOAD), quiet).ref for each in (store, elsewhere)]

    assert refs[0] == refs[1]


@pytest.mark.parametrize(
    "other",
    [
        {"name": "y"},
        {"inputs": {"raw": "ab"}},
        {"settings": {"epochs": 3}},
        {"settings": {"epochs": 2.0}},
        {"code": {"tasks/core/model.py: Net": "cd"}},
        {"environment": {"torch": "2.15.0"}},
    ],
)
def test_every_ingredient_of_the_key_makes_another_version(other: dict[str, Any]) -> None:
    assert (
        Key(**{"name": "x", "settings": {"epochs": 2}} | other).version != Key(name="x", settings={"epochs": 2}).version
    )


def test_the_order_of_the_ingredients_does_not_matter() -> None:
    assert Key(name="x", settings={"a": 1, "b": 2}).version == Key(name="x", settings={"b": 2, "a": 1}).version


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (True, 1)])
def test_values_that_python_calls_equal_are_told_apart(store: Store, before: Any, after: Any) -> None:
    store.get_or_create(stage_of(PAYLOAD, settings={"rate": before}), quiet)

    assert not store.get_or_create(stage_of(PAYLOAD, settings={"rate": after}), quiet).reused


def test_the_manifest_says_which_run_made_it(store: Store) -> None:
    ref = store.for_run("tonight").get_or_create(stage_of(PAYLOAD), quiet).ref

    manifest = store.manifest(ref.name, ref.version)

    assert manifest is not None
    assert manifest.made.run == "tonight"


def test_the_manifest_of_the_first_that_made_the_same_bytes_is_found(store: Store) -> None:
    first = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    again = store.get_or_create(stage_of(PAYLOAD), quiet, refresh=True).ref

    manifest = store.first_made(again)

    assert manifest is not None
    assert manifest.ref == first != again


# Damage


def flip_a_bit(path: Path) -> None:
    altered = bytearray(path.read_bytes())
    altered[3] ^= 1
    times = path.stat()
    path.write_bytes(altered)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (flip_a_bit, "b.bin is damaged: its bytes are not those that were stored"),
    (truncate, "b.bin is damaged: expected 14 bytes, got 13"),
    (lengthen, "b.bin is damaged: expected 14 bytes, got 15"),
    (Path.unlink, "b.bin is missing"),
    (replace_by_a_folder, "b.bin is missing"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_bytes_are_noticed_and_made_again(
    store: Store, log: list[str], damage: Callable[[Path], None], words: str
) -> None:
    stage, builds = counted(stage_of(PAYLOAD))
    ref = store.get_or_create(stage, quiet).ref
    damage(store.folder(ref.name, ref.version) / "b.bin")

    healed = store.get_or_create(stage, log.append)

    assert log == [f"x is made again: {ref}: {words}"]
    assert (healed.reused, healed.ref, len(builds)) == (False, ref, 2)
    assert payload_of(store, ref) == PAYLOAD
    assert store.get_or_create(stage, quiet).reused


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_damaged_bytes_are_never_opened(store: Store, damage: Callable[[Path], None], words: str) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    damage(store.folder(ref.name, ref.version) / "b.bin")

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


def test_a_file_that_the_manifest_does_not_know_does_no_harm(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    stray = store.folder(ref.name, ref.version) / ".DS_Store"
    stray.write_bytes(b"a file manager was here")

    assert store.get_or_create(stage_of(PAYLOAD), quiet).reused
    assert store.open(ref) == stray.parent


def test_healing_with_the_same_bytes_touches_the_damaged_file_only(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    folder = store.open(ref)
    flip_a_bit(folder / "b.bin")
    damaged = (folder / "b.bin").read_bytes()
    before = {name: (folder / name).stat() for name in ("a.bin", MANIFEST)}

    store.get_or_create(stage_of(PAYLOAD), quiet)

    assert {name: (folder / name).stat() for name in before} == before
    [aside] = (store.root / ".quarantine").iterdir()
    assert aside.name.startswith(f"x-{ref.version}-b.bin-")
    assert aside.read_bytes() == damaged


def test_healing_with_other_bytes_is_a_new_attempt(store: Store) -> None:
    stage = never_the_same()
    old = store.get_or_create(stage, quiet).ref
    flip_a_bit(store.open(old) / "a.bin")
    damaged = contents(store.folder(old.name, old.version))

    new = store.get_or_create(stage, quiet)

    assert new.ref.version == stage.key.at_attempt(1).version
    assert new.ref.sha256 != old.sha256
    assert payload_of(store, new.ref) == {"a.bin": b"build 1"}
    assert not store.folder(old.name, old.version).exists()
    [aside] = (store.root / ".quarantine").iterdir()
    assert aside.name.startswith(f"x-{old.version}-")
    assert contents(aside) == damaged
    assert store.get_or_create(stage, quiet).ref == new.ref


# Refresh


def test_refresh_makes_a_new_attempt_that_is_used_from_then_on(store: Store, log: list[str]) -> None:
    stage = never_the_same()
    first = store.get_or_create(stage, quiet).ref

    second = store.get_or_create(stage, log.append, refresh=True)
    third = store.get_or_create(stage, quiet, refresh=True)

    assert log == [f"x is made again: asked for, in place of {first}"]
    assert [second.ref.version, third.ref.version] == [stage.key.at_attempt(n).version for n in (1, 2)]
    again = store.get_or_create(stage, quiet)
    assert (again.reused, again.ref) == (True, third.ref)
    assert [payload_of(store, ref)["a.bin"] for ref in (first, second.ref, third.ref)] == [
        b"build 0",
        b"build 1",
        b"build 2",
    ]


def test_refresh_makes_a_new_attempt_of_the_same_bytes_too(store: Store) -> None:
    first = store.get_or_create(stage_of(PAYLOAD), quiet).ref

    second = store.get_or_create(stage_of(PAYLOAD), quiet, refresh=True).ref

    assert second.version != first.version
    assert second.sha256 == first.sha256


# Lost manifests


def delete(manifest: Path) -> None:
    manifest.unlink()


def cut(manifest: Path) -> None:
    manifest.write_bytes(manifest.read_bytes()[:200])


def empty(manifest: Path) -> None:
    manifest.write_bytes(b"")


def overwrite(manifest: Path) -> None:
    manifest.write_bytes(b"\xff\xfe garbage")


def edit(path: str, value: object) -> Callable[[Path], None]:
    """A manifest in which the value at a dotted path is another."""

    def edited(manifest: Path) -> None:
        whole = inner = json.loads(manifest.read_text(encoding="utf-8"))
        *outer, last = path.split("/")
        for name in outer:
            inner = inner[name]
        inner[last] = value
        manifest.write_text(json.dumps(whole), encoding="utf-8")

    edited.__name__ = path
    return edited


def take_anothers(manifest: Path) -> None:
    other = Store(manifest.parents[2]).get_or_create(stage_of({"a.bin": b"other"}, settings={"epochs": 3}), quiet).ref
    shutil.copyfile(manifest.parents[1] / other.version / MANIFEST, manifest)


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
    store: Store, spoil: Callable[[Path], None]
) -> None:
    stage = never_the_same()
    old = store.get_or_create(stage, quiet).ref
    folder = store.folder(old.name, old.version)
    spoil(folder / MANIFEST)

    new = store.get_or_create(stage, quiet)

    assert not new.reused
    assert new.ref.version != old.version
    assert not folder.exists() or (folder / "a.bin").read_bytes() == b"build 0"
    assert payload_of(store, new.ref) == {"a.bin": b"build 1"}
    assert store.get_or_create(stage, quiet).ref == new.ref


@pytest.mark.parametrize("spoil", [delete, edit("files/a.bin/bytes", 5)], ids=lambda spoil: spoil.__name__)
def test_what_is_made_in_place_of_a_spoilt_manifest_can_be_opened(store: Store, spoil: Callable[[Path], None]) -> None:
    old = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    spoil(store.folder(old.name, old.version) / MANIFEST)

    new = store.get_or_create(stage_of(PAYLOAD), quiet).ref

    assert payload_of(store, new) == PAYLOAD


def test_an_attempt_whose_manifest_is_lost_is_not_overwritten(store: Store) -> None:
    stage = never_the_same()
    store.get_or_create(stage, quiet)
    lost = store.get_or_create(stage, quiet, refresh=True).ref
    (store.folder(lost.name, lost.version) / MANIFEST).unlink()

    newest = store.get_or_create(stage, quiet, refresh=True).ref

    assert newest.version == stage.key.at_attempt(2).version
    assert (store.folder(lost.name, lost.version) / "a.bin").read_bytes() == b"build 1"


# Why something is made

BEFORE: dict[str, Any] = {
    "inputs": {"dataset": "3fa9"},
    "settings": {"recipe": {"epochs": 2, "momentum": 0.9}, "seed": 1},
    "code": {"tasks/core/model.py: Net": "aa", "tasks/core/training.py: train": "bb"},
    "environment": {"torch": "2.11.0", "threads": 2},
}


def said(store: Store, **ingredients: Any) -> str:
    """What the store says about making x of these ingredients."""
    log: list[str] = []
    store.get_or_create(stage_of(PAYLOAD, **ingredients), log.append)
    [line] = log
    return line.removeprefix("x is made: ")


def changed(ingredient: str, **values: Any) -> dict[str, Any]:
    return BEFORE | {ingredient: BEFORE[ingredient] | values}


@pytest.mark.parametrize(
    ("ingredients", "words"),
    [
        (changed("settings", recipe={"epochs": 3, "momentum": 0.9}), "recipe.epochs 2 → 3"),
        (changed("settings", seed=7), "seed 1 → 7"),
        (changed("settings", warmup=5), "warmup added"),
        (BEFORE | {"settings": {"seed": 1}}, "recipe.epochs removed, recipe.momentum removed"),
        (changed("code", **{"tasks/core/model.py: Net": "cc"}), "code tasks/core/model.py: Net changed"),
        (changed("code", **{"tasks/core/model.py: Block": "cc"}), "code tasks/core/model.py: Block added"),
        (BEFORE | {"code": {"tasks/core/training.py: train": "bb"}}, "code tasks/core/model.py: Net removed"),
        (changed("inputs", dataset="77b0"), "input dataset changed"),
        (changed("environment", torch="2.15.0"), "torch 2.11.0 → 2.15.0"),
        (
            changed("settings", seed=2) | {"inputs": {"dataset": "77b0"}},
            "input dataset changed, seed 1 → 2",
        ),
    ],
)
def test_the_store_says_what_differs_from_before(store: Store, ingredients: dict[str, Any], words: str) -> None:
    assert said(store, **BEFORE) == "for the first time"

    assert said(store, **ingredients) == words


def test_other_artifacts_are_no_earlier_versions(store: Store) -> None:
    store.get_or_create(stage_of(PAYLOAD, "y", settings={"seed": 1}), quiet)

    assert said(store, settings={"seed": 2}) == "for the first time"


def test_the_reason_is_told_from_the_nearest_earlier_version(store: Store) -> None:
    said(store, settings={"seed": 1, "epochs": 2, "batch_size": 4})
    said(store, settings={"seed": 5, "epochs": 9, "batch_size": 64})

    assert said(store, settings={"seed": 1, "epochs": 2, "batch_size": 8}) == "batch_size 4 → 8"


def test_of_equally_near_versions_the_newest_is_told_from(store: Store) -> None:
    for seed in (1, 2, 3):
        said(store, settings={"seed": seed})

    assert said(store, settings={"seed": 4}) == "seed 3 → 4"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"settings": {"rate": 1}}, {"settings": {"rate": 1.0}}),
        ({"settings": {"facts": {}}}, {"settings": {}}),
        (
            {"settings": {"device": "auto"}, "environment": {"device": "cpu"}},
            {"settings": {"device": "cpu"}, "environment": {"device": "cpu"}},
        ),
    ],
    ids=["other type", "empty group", "setting named like a fact of the environment"],
)
def test_there_is_always_a_reason(before: dict[str, Any], after: dict[str, Any], store: Store) -> None:
    store.get_or_create(stage_of(PAYLOAD, **before), quiet)

    assert why_made(Key(name="x", **after), store.manifests("x"))


# Builds that fail or are killed


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_build_that_raises_leaves_nothing_behind(store: Store, error: BaseException) -> None:
    def fail(folder: Path, _: Log) -> None:
        (folder / "a.bin").write_bytes(b"half of it")
        raise error

    with pytest.raises(type(error)):
        store.get_or_create(Stage(Key(name="x"), fail), quiet)

    assert staged(store) == []
    assert versions(store) == {}
    assert payload_of(store, store.get_or_create(stage_of(PAYLOAD), quiet).ref) == PAYLOAD


FULL_DISK = """
import resource, sys
from pathlib import Path
from tasks.core.errors import WorldError
from tasks.core.store import open_store
from tiny_artifacts import quiet, stage_of
store, room = open_store(Path(sys.argv[1])), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    store.get_or_create(stage_of({"a.bin": b"the bytes of a"}), quiet)
except WorldError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [10, 300], ids=["for a part of the payload", "for a part of the manifest"])
def test_a_build_that_finds_no_room_says_so_in_one_line_and_leaves_nothing_behind(store: Store, room: int) -> None:
    with started(FULL_DISK, store.root, room) as process:
        [said] = go_on(process)

    assert os.strerror(errno.EFBIG) in said
    assert str(store.root) in said
    assert staged(store) == []
    assert versions(store) == {}


def test_what_a_build_may_not_read_elsewhere_is_not_blamed_on_the_store(store: Store, tmp_path: Path) -> None:
    closed = tmp_path / "closed.tar.gz"

    def build(_: Path, __: Log) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed))  # as open() would for all but root

    with pytest.raises((OSError, ExpectedError)) as raised:
        store.get_or_create(Stage(Key(name="x"), build), quiet)

    assert str(closed) in str(raised.value)
    assert "free some" not in str(raised.value)


BUILDING = """
import sys
from pathlib import Path
from tasks.core.artifact import Key, Stage
from tasks.core.store import open_store

def build(folder, log):
    (folder / "a.bin").write_bytes(b"the bytes of a")
    with Path(sys.argv[1], "builds").open("a") as builds:
        builds.write("built\\n")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "b.bin").write_bytes(b"the bytes of b")

store = open_store(Path(sys.argv[1]))
outcome = store.get_or_create(Stage(Key(name="x"), build), lambda line: print(line, flush=True))
print(outcome.ref.model_dump_json())
"""


def test_a_killed_build_leaves_no_version_and_the_next_one_builds(root: Path) -> None:
    with started(BUILDING, root) as process:
        assert next_line(process) == "x is made: for the first time"
        assert next_line(process) == "building"
        killed(process)
    assert contents(root / ".work" / "staging")

    store = open_store(root)

    assert staged(store) == []
    assert versions(store) == {}
    outcome = store.get_or_create(stage_of(PAYLOAD), quiet)
    assert not outcome.reused
    assert payload_of(store, outcome.ref) == PAYLOAD


def test_opening_the_store_leaves_a_live_build_alone(root: Path) -> None:
    with started(BUILDING, root) as process:
        next_line(process)
        assert next_line(process) == "building"

        store = open_store(root)

        assert [contents(folder) for folder in staged(store)] == [{"a.bin": b"the bytes of a"}]
        [line] = go_on(process)
    assert payload_of(store, ArtifactRef.model_validate_json(line)) == PAYLOAD


def test_two_processes_that_want_the_same_version_build_it_once(root: Path) -> None:
    with started(BUILDING, root) as first:
        next_line(first)
        assert next_line(first) == "building"
        with started(BUILDING, root) as second:
            waits = next_line(second)
            [made], [reused] = go_on(first), go_on(second)

    assert waits == f"waiting for another run, which works on x-{stage_of(PAYLOAD).key.version}"
    assert made == reused
    assert (root / "builds").read_text(encoding="utf-8") == "built\n"
    assert payload_of(open_store(root), ArtifactRef.model_validate_json(made)) == PAYLOAD


def test_who_waits_for_a_process_that_is_killed_builds_instead(root: Path) -> None:
    with started(BUILDING, root) as first:
        next_line(first)
        assert next_line(first) == "building"
        with started(BUILDING, root) as second:
            assert next_line(second).startswith("waiting for another run")
            killed(first)
            assert next_line(second) == "x is made: for the first time"
            assert next_line(second) == "building"
            [line] = go_on(second)

    assert payload_of(open_store(root), ArtifactRef.model_validate_json(line)) == PAYLOAD


# Killed at every step

MAKE = """
from tasks.core.store import open_store
from tiny_artifacts import quiet, stage_of
def act(root):
    open_store(root).get_or_create(stage_of({"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}), quiet)
"""
REFRESH = MAKE.replace("quiet)", "quiet, refresh=True)")
MAKE_OTHER_BYTES = MAKE.replace("the bytes", "other bytes")
OTHER_PAYLOAD = {name: content.replace(b"the", b"other") for name, content in PAYLOAD.items()}


def test_a_build_killed_at_any_step_leaves_the_version_whole_or_not_at_all(tmp_path: Path) -> None:
    whole = []
    for root in killed_at_every_step(MAKE, tmp_path / "nothing yet", tmp_path / "killed"):
        store = open_store(root)
        assert staged(store) == []
        found = versions(store)
        assert all(set(files) == {*PAYLOAD, MANIFEST} for files in found.values())
        whole.append(bool(found))

        outcome = store.get_or_create(stage_of(PAYLOAD), quiet)

        assert outcome.reused == bool(found)
        assert outcome.ref.version == stage_of(PAYLOAD).key.version
        assert payload_of(store, outcome.ref) == PAYLOAD
    assert whole == sorted(whole)
    assert set(whole) == {False, True}


def test_a_refresh_killed_at_any_step_leaves_the_old_version_as_it_was(store: Store, tmp_path: Path) -> None:
    old = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    before = versions(store)

    for root in killed_at_every_step(REFRESH, store.root, tmp_path / "killed"):
        reopened = open_store(root)
        assert versions(reopened)[old.version] == before[old.version]

        outcome = reopened.get_or_create(stage_of(PAYLOAD), quiet)

        assert outcome.reused
        assert payload_of(reopened, outcome.ref) == PAYLOAD


def test_healing_killed_at_any_step_is_finished_by_the_next_run(store: Store, tmp_path: Path) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    whole = versions(store)
    for name in PAYLOAD:
        flip_a_bit(store.folder(ref.name, ref.version) / name)

    for root in killed_at_every_step(MAKE, store.root, tmp_path / "killed"):
        reopened = open_store(root)
        assert reopened.get_or_create(stage_of(PAYLOAD), quiet).ref == ref
        assert versions(reopened) == whole


def test_healing_with_other_bytes_killed_at_any_step_never_changes_a_version(store: Store, tmp_path: Path) -> None:
    old = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    flip_a_bit(store.folder(old.name, old.version) / "b.bin")
    damaged = versions(store)[old.version]

    for root in killed_at_every_step(MAKE_OTHER_BYTES, store.root, tmp_path / "killed"):
        reopened = open_store(root)
        assert versions(reopened).get(old.version, damaged) == damaged

        new = reopened.get_or_create(stage_of(OTHER_PAYLOAD), quiet).ref

        assert new.version == stage_of(PAYLOAD).key.at_attempt(1).version
        assert payload_of(reopened, new) == OTHER_PAYLOAD


OPEN = """
from tasks.core.store import open_store
act = open_store
"""


def test_a_first_opening_killed_at_any_step_can_be_done_again(tmp_path: Path) -> None:
    for root in killed_at_every_step(OPEN, tmp_path / "nothing yet", tmp_path / "killed"):
        assert not open_store(root).get_or_create(stage_of(PAYLOAD), quiet).reused


def test_opening_sweeps_the_files_that_killed_processes_left_half_written(tmp_path: Path) -> None:
    for root in killed_at_every_step(OPEN, tmp_path / "nothing yet", tmp_path / "killed"):
        open_store(root)

        assert {path.name for path in root.iterdir()} == {"store.json", ".work"}


SYNCED = """
import os, sys
from pathlib import Path
from tasks.core.store import open_store
from tiny_artifacts import quiet, stage_of

store = open_store(Path(sys.argv[1]))
renamed, synced, waiting = [], set(), set()

def note_sync(descriptor, sync=os.fsync):
    sync(descriptor)
    facts = os.fstat(descriptor)
    synced.add((facts.st_dev, facts.st_ino))
    waiting.discard(os.readlink(f"/proc/self/fd/{descriptor}"))

def identity(path):
    facts = os.stat(path)
    return facts.st_dev, facts.st_ino

def check_rename(event, arguments):
    if event == "os.rename" and ".work" not in Path(arguments[1]).parts:
        source, target = map(Path, arguments[:2])
        for path in (source, *source.rglob("*")):
            assert identity(path) in synced, f"{path} was renamed before it was synced"
        renamed.append(target.name)
        waiting.add(str(target.parent))

os.fsync = note_sync
sys.addaudithook(check_rename)
outcome = store.get_or_create(stage_of({"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}), quiet)
print(renamed == [outcome.ref.version], waiting)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="which file was synced is asked of /proc")
def test_the_disk_holds_every_byte_of_a_version_before_its_name(root: Path) -> None:
    """What a power cut asks for: the payload, the manifest and their folder, then the rename, then the outer folder."""
    with started(SYNCED, root) as process:
        assert go_on(process) == ["True set()"]


# The store itself


def test_a_store_travels_to_another_process(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    sent = pickle.dumps(store.for_run("tonight"))
    receive = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).for_run('tonight').open"
    receive += "(pickle.loads(bytes.fromhex(sys.argv[2]))))"

    with started(receive, sent.hex(), pickle.dumps(ref).hex()) as process:
        assert go_on(process) == [str(store.open(ref))]

    assert pickle.loads(sent) == store.for_run("tonight")  # noqa: S301 - our own bytes


def test_a_store_of_another_format_is_refused(store: Store) -> None:
    (store.root / "store.json").write_text('{"format": 2}', encoding="utf-8")

    with pytest.raises(InputError) as raised:
        open_store(store.root)

    assert str(raised.value) == (f"store {store.root}: expected format 1, got 2; use the cifar-flow that made it")


@pytest.mark.parametrize("text", ["", "garbage", "[]", '"format"'])
def test_a_garbled_description_of_the_store_is_said_in_one_line(store: Store, text: str) -> None:
    (store.root / "store.json").write_text(text, encoding="utf-8")

    with pytest.raises(ExpectedError) as raised:
        open_store(store.root)

    assert str(store.root) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_where_the_store_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")

    with pytest.raises(InputError) as raised:
        open_store(tmp_path / "file" / "store")

    assert str(raised.value) == (
        f"store {tmp_path / 'file' / 'store'}: cannot be written (Not a directory); give another folder by --store"
    )


OPEN_AS_NOBODY = """
import os, sys
from pathlib import Path
from tasks.core.errors import InputError
from tasks.core.store import open_store
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    open_store(Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


@pytest.fixture
def read_only(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder that one may look into and not write to: an empty one, or one with a store in it."""
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = Path(folder)
        if request.param == "a store":
            open_store(root).get_or_create(stage_of(PAYLOAD), quiet)
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root


@pytest.mark.parametrize("read_only", ["nothing", "a store"], indirect=True)
def test_a_folder_that_cannot_be_written_is_refused(read_only: Path) -> None:
    with started(OPEN_AS_NOBODY, read_only) as process:
        said = go_on(process)

    assert said == [f"store {read_only}: cannot be written (Permission denied); give another folder by --store"]
