"""What a run would do, told without running: on a store of two real runs, each line for each reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from places import (
    PLACES_BY_SOAK,
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
from tiny_runs import quiet, tiny_run

from tasks.core.config import Settings
from tasks.core.errors import InputError
from tasks.core.explanation import explain
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.current import read_current, roll_back
from tasks.core.store.history import find_run

VERDICT_FOLLOWS = "report: its verdict follows from what is made before it"


@pytest.fixture(params=PLACES_BY_SOAK)
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
        lines = list(explain(place.open(), settings_of(archive, **settings), pytest.fail))
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


def reused(refs: dict[str, ArtifactRef]) -> list[str]:
    return [
        f"download: {refs['raw']} is not needed: {refs['dataset']}, made from it, is intact",
        f"normalize: reused {refs['dataset']}",
        f"normalize (data checks): reused {refs['data_checks']}",
        f"train: reused {refs['weights']}",
        f"evaluate: reused {refs['predictions']}",
        f"evaluate (per class): reused {refs['per_class']}",
        f"report: reused {refs['report']}",
    ]


# Reused


def test_a_run_with_the_current_ones_settings_would_reuse_everything(
    place: Place, told: Callable[..., list[str]]
) -> None:
    assert told(place) == reused(refs_of(place))


def test_a_run_with_an_older_ones_settings_would_make_a_report_with_a_verdict_of_its_own(
    place: Place, told: Callable[..., list[str]]
) -> None:
    assert told(place, seed=1) == [
        *reused(refs_of(place, "previous"))[:6],
        "report runs again: facts.verdict changed",
    ]


def test_a_policy_that_makes_another_verdict_makes_another_report(place: Place, told: Callable[..., list[str]]) -> None:
    assert told(place, seed=1, promote="never")[6] == (
        "report runs again: facts.promoted True → False, facts.verdict changed"
    )
    assert told(place, promote="never") == reused(refs_of(place))  # the current run stays


# For the first time


def test_on_an_empty_store_everything_would_run_for_the_first_time(
    folder: FolderPlace, told: Callable[..., list[str]]
) -> None:
    folder.open()

    assert told(folder) == [
        "download runs for the first time",
        "normalize runs for the first time",
        "normalize (data checks) runs for the first time",
        "train runs for the first time",
        "evaluate runs for the first time",
        "evaluate (per class) runs for the first time",
        VERDICT_FOLLOWS,
    ]


# Changed settings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"epochs": 3}, "recipe.epochs 1 → 3"),
        ({"seed": 7}, "seed 2 → 7"),
        ({"batch_size": 2, "learning_rate": 0.01}, "recipe.batch_size 4 → 2, recipe.learning_rate 0.001 → 0.01"),
        ({"seed": 1, "epochs": 3}, "recipe.epochs 1 → 3"),  # against the nearer of the two earlier runs
    ],
)
def test_a_changed_setting_is_told_from_what_to_what(
    place: Place, told: Callable[..., list[str]], settings: dict[str, Any], reason: str
) -> None:
    assert told(place, **settings) == [
        *reused(refs_of(place))[:3],
        f"train runs again: {reason}",
        "evaluate runs again: input weights is made anew",
        "evaluate (per class) runs again: input predictions is made anew",
        VERDICT_FOLLOWS,
    ]


def test_another_archive_is_told_as_such(place: Place, told: Callable[..., list[str]], tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"another archive")

    assert told(place, source=str(other))[:4] == [
        "download runs again: sha256 changed",
        "normalize runs again: input raw is made anew",
        "normalize (data checks) runs again: input dataset is made anew",
        "train runs again: input dataset is made anew",
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
def test_a_refreshed_stage_runs_again_and_what_depends_on_it_if_other_bytes_come_out(
    place: Place, told: Callable[..., list[str]], refresh: str, first: int, artifact: str
) -> None:
    refs = refs_of(place)

    lines = told(place, refresh=refresh)

    if refresh == "normalize":  # which needs the archive
        assert lines[0] == f"download: reused {refs['raw']}"
    else:
        assert lines[:first] == reused(refs)[:first]
    assert lines[first].endswith(f" runs again: asked for, in place of {refs[artifact]}")
    if refresh == "evaluate":
        assert lines[5].endswith(f" runs again: asked for, in place of {refs['per_class']}")
    elif refresh == "normalize":
        assert lines[2].endswith(f" runs again: asked for, in place of {refs['data_checks']}")
    elif first < 6:
        assert lines[first + 1].startswith(f"{reused(refs)[first + 1]}, unless other bytes come out for {artifact}")
    assert first == 6 or lines[6] == VERDICT_FOLLOWS


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
def test_a_damaged_payload_is_told_with_what_is_wrong(
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

    [again] = [each for each in lines if " runs again: " in each]
    assert again == f"{line} runs again: {refs[artifact]}: {file} {words}"
    if artifact == "weights":
        assert lines[4] == f"evaluate: reused {refs['predictions']}, unless other bytes come out for weights"


def test_a_damaged_manifest_is_told(place: Place, told: Callable[..., list[str]]) -> None:
    weights = refs_of(place)["weights"]
    overwrite(place, f"{weights}/manifest.json")

    assert told(place)[3] == f"train runs again: {weights}: its manifest is lost or damaged"


def test_an_archive_that_is_lost_is_not_needed_while_the_dataset_is_intact(
    place: Place, told: Callable[..., list[str]]
) -> None:
    refs = refs_of(place)
    place.delete(place.name_of(refs["raw"], "archive.tar.gz"))

    assert told(place) == reused(refs)


def test_an_archive_that_is_lost_is_needed_where_the_dataset_is_damaged(
    place: Place, told: Callable[..., list[str]]
) -> None:
    refs = refs_of(place)
    place.delete(place.name_of(refs["raw"], "archive.tar.gz"))
    flip_a_bit(place, place.name_of(refs["dataset"], "test_images.npy"))

    download, normalize, _, train, *_ = told(place)

    assert download == f"download runs again: {refs['raw']}: archive.tar.gz is missing"
    assert normalize.startswith(f"normalize runs again: {refs['dataset']}: test_images.npy is damaged")
    assert train == f"train: reused {refs['weights']}, unless other bytes come out for dataset"


# And then it is so


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"refresh": "train"}, {"seed": 1}])
def test_a_run_gives_the_reasons_that_were_told_before(
    place: Place, told: Callable[..., list[str]], archive: Path, settings: dict[str, Any]
) -> None:
    reasons = [line for line in told(place, **settings) if " runs again: " in line and "made anew" not in line]
    log: list[str] = []

    tiny_run(place.location, settings_of(archive, **settings), log.append)

    assert reasons
    assert set(reasons) <= set(log)


def test_after_a_rollback_the_current_run_stays_with_a_report_that_is_made_once_and_then_reused(
    place: Place, told: Callable[..., list[str]], archive: Path
) -> None:
    rolled_back_to = roll_back(place.open(), find_run(place.open(), "previous"), "unfair", quiet)
    assert told(place, seed=1)[6].startswith("report runs again: facts.verdict it is the first finished run")

    tiny_run(place.location, settings_of(archive, seed=1))

    found = read_current(place.open())
    assert found is not None
    assert (found.run, found.why) == (rolled_back_to.run, "unfair")
    assert "unfair" in place.read("report.html").decode()
    assert told(place, seed=1) == reused(found.artifacts)


def test_a_payload_that_cannot_be_read_is_told(artifacts: Path, archive: Path) -> None:
    place = FolderPlace(artifacts)
    weights = refs_of(place)["weights"]
    make_unreadable(place, f"{weights}/cifar_net.pth")

    lines = list(explain(place.open(), settings_of(archive), pytest.fail))

    assert lines[3] == f"train runs again: {weights}: cifar_net.pth cannot be read: Input/output error"


def test_a_run_on_a_bucket_is_told_as_in_a_folder(bucket: BucketPlace, archive: Path) -> None:
    refs = tiny_run(bucket.location, settings_of(archive)).artifacts
    assert list(explain(bucket.open(), settings_of(archive), pytest.fail)) == reused(refs)

    flip_a_bit(bucket, bucket.name_of(refs["weights"], "cifar_net.pth"))

    lines = list(explain(bucket.open(), settings_of(archive), pytest.fail))
    assert lines[3].startswith(f"train runs again: {refs['weights']}: cifar_net.pth is damaged")


def test_a_device_that_is_not_here_is_refused(artifacts: Path, archive: Path) -> None:
    store: Store = open_store(artifacts)

    with pytest.raises(InputError, match="device: expected one that is here, got cuda:99"):
        list(explain(store, settings_of(archive, device="cuda:99"), pytest.fail))


def test_more_held_out_images_than_there_are_is_refused(artifacts: Path, archive: Path) -> None:
    with pytest.raises(InputError, match="validation: expected at most 390 of 400 training images, got 400"):
        list(explain(open_store(artifacts), settings_of(archive, validation=400), quiet))
