"""A store in a folder only: full and read-only disks, kills at every step, power cuts."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from killing import kill_at_every_step, python_process, resume
from places import FolderPlace, flip_a_bit, make_unreadable, read_payload, staging_folders
from tiny import tiny_archive
from tiny_artifacts import build_of

from tasks.core.errors import CifarFlowError, EnvironmentFailure, InputError
from tasks.core.runtime.files import disk_errors
from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.artifact import Build, Key
from tasks.core.store.promotion_log import LogEntry, append_entry
from tasks.core.store.storage import MANIFEST

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.fixture
def store(folder: FolderPlace) -> Store:
    return folder.open()


# Damage


@pytest.mark.parametrize("name", ["a.bin", MANIFEST])
def test_an_unreadable_file_is_reported_on_one_line(folder: FolderPlace, store: Store, name: str) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    make_unreadable(folder, f"{ref}/{name}")

    with pytest.raises(EnvironmentFailure) as raised:
        store.open(ref)

    assert f"{name} cannot be read: Input/output error; " in str(raised.value).replace(": cannot", " cannot")
    assert "\n" not in str(raised.value)


def test_an_unreadable_folder_is_reported_on_one_line(folder: FolderPlace, store: Store) -> None:
    (folder.root / "runs").symlink_to("runs")

    assert store.storage.names("runs") == []
    with pytest.raises(
        EnvironmentFailure, match=r"runs/one\.json: cannot be read: Too many levels of symbolic links; check"
    ):
        store.storage.read("runs/one.json")


@pytest.mark.parametrize(
    ("code", "advice"),
    [(errno.ENOSPC, "free some"), (errno.EACCES, "permissions"), (errno.EIO, "check the disk")],
)
def test_the_advice_for_a_disk_error_fits_its_cause(tmp_path: Path, code: int, advice: str) -> None:
    with pytest.raises(EnvironmentFailure, match=advice) as raised, disk_errors(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "file"))

    assert ("free some" in str(raised.value)) == (code == errno.ENOSPC)
    assert os.strerror(code) in str(raised.value)


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def cut_the_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("damage", [replace_by_a_folder, cut_the_link])
def test_a_folder_or_broken_link_counts_as_a_missing_file(
    folder: FolderPlace, store: Store, damage: Callable[[Path], None]
) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    damage(folder.root / str(ref) / "b.bin")

    with pytest.raises(DamagedArtifact, match=r"b\.bin is missing"):
        store.open(ref)
    assert store.get_or_create(build_of(PAYLOAD)).ref == ref
    assert read_payload(store, ref) == PAYLOAD


def test_a_rebuild_does_not_touch_intact_files(folder: FolderPlace, store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    version = store.open(ref)
    flip_a_bit(folder, f"{ref}/b.bin")
    before = {name: (version / name).stat() for name in ("a.bin", MANIFEST)}

    store.get_or_create(build_of(PAYLOAD))

    assert {name: (version / name).stat() for name in before} == before


def test_a_version_is_opened_in_place(folder: FolderPlace, store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref

    assert store.open(ref) == folder.root / "x" / ref.version


def test_a_store_folder_can_be_moved(folder: FolderPlace, store: Store, tmp_path: Path) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    moved = folder.root.rename(tmp_path / "elsewhere")

    assert open_store(moved).get_or_create(build_of(PAYLOAD)).is_cache_hit
    assert open_store(moved).open(ref) == moved / "x" / ref.version


# Full disks and permissions

FULL_DISK = """
import resource, sys
from tasks.core.errors import EnvironmentFailure
from tasks.core.store import open_store
from tiny_artifacts import build_of
store, room = open_store(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    store.get_or_create(build_of({"a.bin": b"the bytes of a"}))
except EnvironmentFailure as error:
    print(error)
"""


@pytest.mark.parametrize("room", [10, 300], ids=["for a part of the payload", "for a part of the manifest"])
def test_a_full_disk_is_reported_and_leaves_no_version(folder: FolderPlace, store: Store, room: int) -> None:
    with python_process(FULL_DISK, folder.root, room) as process:
        [line] = resume(process)

    assert os.strerror(errno.EFBIG) in line
    assert str(folder.root) in line
    assert staging_folders(store) == []
    assert folder.versions("x") == {}


NO_ROOM_FOR_ARRAYS = """
import resource, sys
from pathlib import Path
from tasks.core.config import Normalization
from tasks.core.data.dataset import build_dataset
from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime.files import disk_errors
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
folder = Path(sys.argv[1])
try:
    with disk_errors(folder):
        build_dataset(folder, Path(sys.argv[2]), Normalization())
except EnvironmentFailure as error:
    print(error)
"""


def test_a_full_disk_is_reported_for_arrays_on_one_line(tmp_path: Path) -> None:
    with python_process(NO_ROOM_FOR_ARRAYS, tmp_path, tiny_archive(tmp_path / "archive", train=50, test=10)) as process:
        [line] = resume(process)
    assert line == f"disk: {os.strerror(errno.EFBIG)} in {tmp_path}; free some space or give another folder"


def test_an_unreadable_input_is_not_reported_as_a_store_error(store: Store, tmp_path: Path) -> None:
    closed = tmp_path / "closed.tar.gz"

    def build(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed))  # as open() would for all but root

    with pytest.raises((OSError, CifarFlowError)) as raised:
        store.get_or_create(Build(Key(name="x"), build))

    assert str(closed) in str(raised.value)
    assert "free some" not in str(raised.value)


def test_a_file_at_the_store_location_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")

    with pytest.raises(InputError) as raised:
        open_store(tmp_path / "file" / "store")

    assert str(raised.value) == (
        f"store {tmp_path / 'file' / 'store'}: cannot be written (Not a directory); give another one by --store"
    )


OPEN_AS_NOBODY = """
import os, sys
from tasks.core.errors import InputError
from tasks.core.store import open_store
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
try:
    open_store(sys.argv[1])
except InputError as error:
    print(error)
"""


@pytest.fixture
def read_only(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A read-only folder: an empty one, or one with a store in it."""
    with TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        root = Path(folder)
        if request.param == "a store":
            open_store(root).get_or_create(build_of(PAYLOAD))
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root


@pytest.mark.parametrize("read_only", ["nothing", "a store"], indirect=True)
def test_a_read_only_folder_is_refused(read_only: Path) -> None:
    with python_process(OPEN_AS_NOBODY, read_only) as process:
        lines = resume(process)

    assert lines == [f"store {read_only}: cannot be written (Permission denied); give another one by --store"]


# Killed at every step

MAKE = """
from tasks.core.store import open_store
from tiny_artifacts import build_of
def act(root):
    open_store(root).get_or_create(build_of({"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}))
"""
REFRESH = MAKE.replace("build_of\n", "build_of, refreshing\n").replace(
    "open_store(root)", "refreshing(open_store(root))"
)
MAKE_OTHER_BYTES = MAKE.replace("the bytes", "other bytes")
OTHER_PAYLOAD = {name: content.replace(b"the", b"other") for name, content in PAYLOAD.items()}


def test_a_build_killed_at_any_step_is_complete_or_absent(tmp_path: Path) -> None:
    whole = []
    for root in kill_at_every_step(MAKE, tmp_path / "nothing yet", tmp_path / "killed"):
        store = open_store(root)
        assert staging_folders(store) == []
        found = FolderPlace(root).versions("x")
        assert all(set(files) == {*PAYLOAD, MANIFEST} for files in found.values())
        whole.append(bool(found))

        outcome = store.get_or_create(build_of(PAYLOAD))

        assert outcome.is_cache_hit == bool(found)
        assert outcome.ref.version == build_of(PAYLOAD).key.version
        assert read_payload(store, outcome.ref) == PAYLOAD
    assert whole == sorted(whole)
    assert set(whole) == {False, True}


def test_a_refresh_killed_at_any_step_keeps_the_old_version(folder: FolderPlace, store: Store, tmp_path: Path) -> None:
    old = store.get_or_create(build_of(PAYLOAD)).ref
    before = folder.files(old)

    for root in kill_at_every_step(REFRESH, folder.root, tmp_path / "killed"):
        reopened = open_store(root)
        assert FolderPlace(root).files(old) == before

        outcome = reopened.get_or_create(build_of(PAYLOAD))

        assert outcome.is_cache_hit
        assert read_payload(reopened, outcome.ref) == PAYLOAD


def test_a_rebuild_killed_at_any_step_is_completed_by_the_next_run(
    folder: FolderPlace, store: Store, tmp_path: Path
) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    whole = folder.versions("x")
    for name in PAYLOAD:
        flip_a_bit(folder, f"{ref}/{name}")

    for root in kill_at_every_step(MAKE, folder.root, tmp_path / "killed"):
        reopened = open_store(root)
        assert reopened.get_or_create(build_of(PAYLOAD)).ref == ref
        assert FolderPlace(root).versions("x") == whole


def test_a_killed_rebuild_with_other_bytes_changes_no_version(
    folder: FolderPlace, store: Store, tmp_path: Path
) -> None:
    old = store.get_or_create(build_of(PAYLOAD)).ref
    flip_a_bit(folder, f"{old}/b.bin")
    damaged = folder.files(old)

    for root in kill_at_every_step(MAKE_OTHER_BYTES, folder.root, tmp_path / "killed"):
        reopened = open_store(root)
        assert FolderPlace(root).versions("x").get(old.version, damaged) == damaged

        new = reopened.get_or_create(build_of(OTHER_PAYLOAD)).ref

        assert new.version == build_of(PAYLOAD).key.with_attempt(1).version
        assert read_payload(reopened, new) == OTHER_PAYLOAD


DELETE = """
from tasks.core.store import open_store
def act(root):
    store = open_store(root)
    for version in store.versions("x"):
        store.storage.delete(f"x/{version}")
"""


def test_a_deletion_killed_at_any_step_leaves_all_or_nothing(folder: FolderPlace, store: Store, tmp_path: Path) -> None:
    store.get_or_create(build_of(PAYLOAD))
    before, found = folder.versions("x"), []

    for root in kill_at_every_step(DELETE, folder.root, tmp_path / "killed"):
        open_store(root)
        found.append(FolderPlace(root).versions("x"))
        assert list((root / ".work" / "staging").iterdir()) == []

    assert found[0] == before
    assert found[-1] == {}
    assert all(versions in (before, {}) for versions in found)


OPEN = """
from tasks.core.store import open_store
act = open_store
"""


def test_a_first_opening_killed_at_any_step_can_be_repeated(tmp_path: Path) -> None:
    for root in kill_at_every_step(OPEN, tmp_path / "nothing yet", tmp_path / "killed"):
        store = open_store(root)

        assert {path.name for path in root.iterdir()} == {"store.json", ".work"}
        assert not store.get_or_create(build_of(PAYLOAD)).is_cache_hit


APPEND = """
from tasks.core.store import open_store
from tasks.core.store.promotion_log import LogEntry, append_entry
def act(root):
    append_entry(open_store(root), LogEntry(action="refuse", run="two", at="", who="", why=""))
"""


def test_a_log_line_killed_at_any_step_is_complete_or_absent(folder: FolderPlace, store: Store, tmp_path: Path) -> None:
    append_entry(store, LogEntry(action="refuse", run="one", at="", who="", why=""))

    copies = kill_at_every_step(APPEND, folder.root, tmp_path / "killed")

    logs = [(root / "promotions.jsonl").read_bytes() for root in copies]
    one, two = sorted(set(logs))
    assert logs == sorted(logs)
    assert two.startswith(one)
    assert [json.loads(line)["run"] for line in two.splitlines()] == ["one", "two"]


# Power cuts

SYNCED = """
import os, sys
from pathlib import Path
from tasks.core.store import open_store
from tasks.core.store.promotion_log import LogEntry, append_entry
from tiny_artifacts import build_of

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
outcome = store.get_or_create(build_of({"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}))
append_entry(store, LogEntry(action="refuse", run="one", at="", who="", why=""))
print(renamed == [outcome.ref.version, "promotions.jsonl"], waiting)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="which file was synced is asked of /proc")
def test_every_byte_is_synced_before_the_rename(folder: FolderPlace) -> None:
    """For power cuts: payload, manifest and their folder, then the rename, then the outer folder."""
    with python_process(SYNCED, folder.root) as process:
        assert resume(process) == ["True set()"]
