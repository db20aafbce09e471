"""`--explain` on a store of two real runs: each line, for each reason to rebuild."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from log_lines import logged_lines
from places import (
    PLACES,
    BucketPlace,
    FolderPlace,
    Place,
    contents,
    copy_store,
    delete,
    flip_a_bit,
    make_unreadable,
    overwrite,
)
from tiny_runs import tiny_run

from tasks.core.config import Settings
from tasks.core.errors import InputError
from tasks.core.explain import explain
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import read_current, roll_back
from tasks.core.store.history import find_run

VERDICT_IS_OPEN = "report: its verdict depends on what is built before it"


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, two_runs: Path) -> Place:
    """A store of two real runs, to be changed at will."""
    found: Place = request.getfixturevalue(request.param)
    copy_store(FolderPlace(two_runs), found)
    return found


@pytest.fixture
def told(archive: Path) -> Callable[..., list[str]]:
    """The lines for the settings of the current run, or for others; telling them must change nothing."""

    def tell(place: Place, **settings: Any) -> list[str]:
        before = everything(place)
        lines = list(explain(place.open(), settings_of(archive, **settings)))
        assert everything(place) == before
        return lines

    return tell


def settings_of(archive: Path, **settings: Any) -> Settings:
    return Settings(**{"source": str(archive), "epochs": 1, "seed": 2} | settings)


def everything(place: Place) -> dict[str, bytes]:
    """Every object, and in a folder what only this machine needs, but for locks."""
    local = contents(place.local) if isinstance(place, FolderPlace) else {}
    return place.all() | {name: content for name, content in local.items() if not name.startswith("locks/")}


def refs_of(place: Place, run: str = "current") -> dict[str, ArtifactRef]:
    return find_run(place.open(), run).artifacts


def hits(refs: dict[str, ArtifactRef]) -> list[str]:
    return [
        f"download: {refs['raw']} is not needed: {refs['dataset']}, built from it, is intact",
        f"normalize: cache hit {refs['dataset']}",
        f"normalize (data checks): cache hit {refs['data_checks']}",
        f"train: cache hit {refs['weights']}",
        f"evaluate: cache hit {refs['predictions']}",
        f"evaluate (per class): cache hit {refs['per_class']}",
        f"report: cache hit {refs['report']}",
    ]


# Reused


def test_the_current_runs_settings_are_all_cache_hits(place: Place, told: Callable[..., list[str]]) -> None:
    assert told(place) == hits(refs_of(place))


def test_an_older_runs_settings_rebuild_only_the_report(place: Place, told: Callable[..., list[str]]) -> None:
    assert told(place, seed=1) == [
        *hits(refs_of(place, "previous"))[:6],
        "report: rebuilding, facts.verdict changed",
    ]


def test_another_verdict_rebuilds_the_report(place: Place, told: Callable[..., list[str]]) -> None:
    assert told(place, seed=1, promote="never")[6] == (
        "report: rebuilding, facts.promoted changed from True to False, facts.verdict changed"
    )
    assert told(place, promote="never") == hits(refs_of(place))  # the current run stays


# For the first time


def test_on_an_empty_store_everything_is_built_for_the_first_time(
    folder: FolderPlace, told: Callable[..., list[str]]
) -> None:
    folder.open()

    assert told(folder) == [
        "download: building for the first time",
        "normalize: building for the first time",
        "normalize (data checks): building for the first time",
        "train: building for the first time",
        "evaluate: building for the first time",
        "evaluate (per class): building for the first time",
        VERDICT_IS_OPEN,
    ]


# Changed settings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"epochs": 3}, "recipe.epochs changed from 1 to 3"),
        ({"seed": 7}, "seed changed from 2 to 7"),
        (
            {"batch_size": 2, "learning_rate": 0.01},
            "recipe.batch_size changed from 4 to 2, recipe.learning_rate changed from 0.001 to 0.01",
        ),
        ({"seed": 1, "epochs": 3}, "recipe.epochs changed from 1 to 3"),  # against the nearer of the two earlier runs
    ],
)
def test_a_changed_setting_is_shown_with_both_values(
    place: Place, told: Callable[..., list[str]], settings: dict[str, Any], reason: str
) -> None:
    assert told(place, **settings) == [
        *hits(refs_of(place))[:3],
        f"train: rebuilding, {reason}",
        "evaluate: rebuilding, input weights will be rebuilt",
        "evaluate (per class): rebuilding, input predictions will be rebuilt",
        VERDICT_IS_OPEN,
    ]


def test_another_archive_is_shown(place: Place, told: Callable[..., list[str]], tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"another archive")

    assert told(place, source=str(other))[:4] == [
        "download: rebuilding, sha256 changed",
        "normalize: rebuilding, input raw will be rebuilt",
        "normalize (data checks): rebuilding, input dataset will be rebuilt",
        "train: rebuilding, input dataset will be rebuilt",
    ]


# Asked for


@pytest.mark.parametrize(
    ("refresh", "first", "artifact"),
    [
        ("download", 0, "raw"),
        ("normalize", 1, "dataset"),
        ("train", 3, "weights"),
        ("evaluate", 4, "predictions"),
        ("report", 6, "report"),
    ],
)
def test_a_refreshed_stage_is_rebuilt(
    place: Place, told: Callable[..., list[str]], refresh: str, first: int, artifact: str
) -> None:
    refs = refs_of(place)

    lines = told(place, refresh=refresh)

    if refresh == "normalize":  # which needs the archive
        assert lines[0] == f"download: cache hit {refs['raw']}"
    else:
        assert lines[:first] == hits(refs)[:first]
    assert lines[first].endswith(": rebuilding, --refresh asked for it")
    if refresh == "evaluate":
        assert lines[5].endswith(": rebuilding, --refresh asked for it")
    elif refresh == "normalize":
        assert lines[2].endswith(": rebuilding, --refresh asked for it")
    elif first < 6:
        assert lines[first + 1].startswith(f"{hits(refs)[first + 1]}, unless {artifact} changes")
    assert first == 6 or lines[6] == VERDICT_IS_OPEN


# Damaged


@pytest.mark.parametrize(
    ("artifact", "file", "line"),
    [
        ("dataset", "train_images.npy", "normalize"),
        ("data_checks", "data_checks.json", "normalize (data checks)"),
        ("weights", "cifar_net.pth", "train"),
        ("predictions", "predictions.parquet", "evaluate"),
        ("per_class", "per_class.parquet", "evaluate (per class)"),
        ("report", "report.html", "report"),
    ],
)
@pytest.mark.parametrize(
    ("damage", "words"),
    [(flip_a_bit, "is damaged: its bytes are not those that were stored"), (delete, "is missing")],
)
def test_a_damaged_payload_is_shown_with_its_damage(
    place: Place,
    told: Callable[..., list[str]],
    artifact: str,
    file: str,
    line: str,
    damage: Callable[[Place, str], None],
    words: str,
) -> None:
    refs = refs_of(place)
    damage(place, place.name_of(refs[artifact], file))

    lines = told(place)

    [again] = [each for each in lines if ": rebuilding, " in each]
    assert again == f"{line}: rebuilding, {refs[artifact]}: {file} {words}"
    if artifact == "weights":
        assert lines[4] == f"evaluate: cache hit {refs['predictions']}, unless weights changes"


def test_a_damaged_manifest_is_shown(place: Place, told: Callable[..., list[str]]) -> None:
    weights = refs_of(place)["weights"]
    overwrite(place, f"{weights}/manifest.json")

    assert told(place)[3] == f"train: rebuilding, {weights}: its manifest is lost or damaged"


def test_a_lost_archive_is_not_needed_while_the_dataset_is_intact(place: Place, told: Callable[..., list[str]]) -> None:
    refs = refs_of(place)
    place.delete(place.name_of(refs["raw"], "archive.tar.gz"))

    assert told(place) == hits(refs)


def test_a_lost_archive_is_needed_if_the_dataset_is_damaged(place: Place, told: Callable[..., list[str]]) -> None:
    refs = refs_of(place)
    place.delete(place.name_of(refs["raw"], "archive.tar.gz"))
    flip_a_bit(place, place.name_of(refs["dataset"], "test_images.npy"))

    download, normalize, _, train, *_ = told(place)

    assert download == f"download: rebuilding, {refs['raw']}: archive.tar.gz is missing"
    assert normalize.startswith(f"normalize: rebuilding, {refs['dataset']}: test_images.npy is damaged")
    assert train == f"train: cache hit {refs['weights']}, unless dataset changes"


# And then it is so


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"refresh": "train"}, {"seed": 1}])
def test_a_run_logs_the_same_reasons(
    place: Place, told: Callable[..., list[str]], archive: Path, settings: dict[str, Any]
) -> None:
    reasons = [line for line in told(place, **settings) if ": rebuilding, " in line and "will be rebuilt" not in line]
    with logged_lines() as log:
        tiny_run(place.location, settings_of(archive, **settings))

    assert reasons
    assert set(reasons) <= set(log)


def test_a_run_after_a_rollback_builds_its_report_once_and_stays_current(
    place: Place, told: Callable[..., list[str]], archive: Path
) -> None:
    rolled_back_to = roll_back(place.open(), find_run(place.open(), "previous"), "unfair")
    assert told(place, seed=1)[6].startswith("report: rebuilding, facts.verdict changed")

    tiny_run(place.location, settings_of(archive, seed=1))

    found = read_current(place.open())
    assert found is not None
    assert (found.run, found.why) == (rolled_back_to.run, "unfair")
    assert "unfair" in place.read("report.html").decode()
    assert told(place, seed=1) == hits(found.artifacts)


def test_an_unreadable_payload_is_shown(artifacts: Path, archive: Path) -> None:
    place = FolderPlace(artifacts)
    weights = refs_of(place)["weights"]
    make_unreadable(place, f"{weights}/cifar_net.pth")

    lines = list(explain(place.open(), settings_of(archive)))

    assert lines[3] == f"train: rebuilding, {weights}: cifar_net.pth cannot be read: Input/output error"


def test_a_store_in_a_bucket_is_explained_like_a_folder(bucket: BucketPlace, archive: Path) -> None:
    refs = tiny_run(bucket.location, settings_of(archive)).artifacts
    assert list(explain(bucket.open(), settings_of(archive))) == hits(refs)

    flip_a_bit(bucket, bucket.name_of(refs["weights"], "cifar_net.pth"))

    lines = list(explain(bucket.open(), settings_of(archive)))
    assert lines[3].startswith(f"train: rebuilding, {refs['weights']}: cifar_net.pth is damaged")


def test_a_missing_device_is_refused(artifacts: Path, archive: Path) -> None:
    store: Store = open_store(artifacts)

    with pytest.raises(InputError, match="--device: expected an available device, got cuda:99"):
        list(explain(store, settings_of(archive, device="cuda:99")))


def test_too_many_held_out_images_are_refused(artifacts: Path, archive: Path) -> None:
    with pytest.raises(InputError, match="validation: expected at most 390 of 400 training images, got 400"):
        list(explain(open_store(artifacts), settings_of(archive, validation=400)))
