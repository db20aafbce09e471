"""Verification finds every kind of damage, and nothing in an intact store."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from places import (
    BUCKET_IN_SOAK,
    FOLDER_ONLY,
    FolderPlace,
    Place,
    delete,
    empty,
    flip_a_bit,
    halve,
    lengthen,
    make_unreadable,
    overwrite,
    truncate,
)
from tiny_artifacts import build_of, finished_run, refreshing

from tasks.core.store import ArtifactRef, open_store
from tasks.core.store.gc import collect_garbage
from tasks.core.store.opening import open_without_repair
from tasks.core.store.runs import RunRecord, recording_run
from tasks.core.store.storage import ROOT_FILES
from tasks.core.store.verify import Finding, verify


@pytest.fixture
def runs(place: Place) -> list[RunRecord]:
    """Two promoted runs; the newer one is current."""
    return [finished_run(place.location, word).record for word in ("one", "two")]


def find_problems(place: Place) -> list[Finding]:
    return [finding for _, findings in verify(open_without_repair(place.location)) for finding in findings]


def wrong(place: Place) -> list[str]:
    return [finding.wrong for finding in find_problems(place)]


def payload_file(place: Place, runs: list[RunRecord], artifact: str, file: str) -> str:
    """The name of a file of the older run, which has no copy at the root."""
    return place.name_of(runs[0].artifacts[artifact], file)


def rebuild_with_other_bytes(place: Place, ref: ArtifactRef) -> None:
    """Rebuild a damaged version with other bytes, as a GPU may."""
    store = place.open()
    manifest = store.manifest(ref.name, ref.version)
    assert manifest is not None
    stage = build_of(dict.fromkeys(manifest.files, b"other bytes"))
    store.get_or_create(replace(stage, key=manifest.key))


@BUCKET_IN_SOAK
def test_an_empty_store_has_no_findings(place: Place) -> None:
    assert find_problems(place) == []


@BUCKET_IN_SOAK
def test_an_intact_store_has_no_findings_and_every_piece_is_named(place: Place, runs: list[RunRecord]) -> None:
    pieces = dict(verify(place.open()))

    refs = {str(ref) for record in runs for ref in record.artifacts.values()}
    assert set(pieces) == refs | {f"run {record.run}" for record in runs} | {"promotions", "current run"}
    assert not any(pieces.values())


@BUCKET_IN_SOAK
def test_a_live_or_failed_run_is_no_finding(place: Place) -> None:
    with recording_run(place.open(), {}, {}):
        assert find_problems(place) == []
    with pytest.raises(ZeroDivisionError), recording_run(place.open(), {}, {}):
        raise ZeroDivisionError

    assert find_problems(place) == []


@BUCKET_IN_SOAK
def test_verifying_changes_nothing(place: Place, runs: list[RunRecord]) -> None:
    flip_a_bit(place, payload_file(place, runs, "weights", "cifar_net.pth"))
    before = place.all()

    assert len(find_problems(place)) == 1

    assert place.all() == before


# Payloads


@BUCKET_IN_SOAK
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip_a_bit, "is damaged: its bytes are not those that were stored"),
        (truncate, "is damaged: expected 14 bytes, got 13"),
        (lengthen, "is damaged: expected 14 bytes, got 15"),
        (empty, "is damaged: expected 14 bytes, got 0"),
        (delete, "is missing"),
    ],
)
def test_every_kind_of_payload_damage_is_found(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None], words: str
) -> None:
    damage(place, payload_file(place, runs, "weights", "cifar_net.pth"))

    [finding] = find_problems(place)

    assert finding.wrong == f"{runs[0].artifacts['weights']}: cifar_net.pth {words}"
    assert (finding.advice, finding.known) == ("the next run that needs it rebuilds it", False)


@FOLDER_ONLY
def test_a_flipped_bit_is_found_with_unchanged_size_and_time(folder: FolderPlace, runs: list[RunRecord]) -> None:
    store, name = folder.open(), payload_file(folder, runs, "weights", "cifar_net.pth")
    before = (folder.root / name).stat()
    store.open(runs[0].artifacts["weights"])

    flip_a_bit(folder, name)

    after = (folder.root / name).stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert [len(findings) for _, findings in verify(store) if findings] == [1]


@BUCKET_IN_SOAK
def test_every_damaged_file_is_found(place: Place, runs: list[RunRecord]) -> None:
    for artifact, file in (("report", "metrics.json"), ("report", "report.html"), ("weights", "cifar_net.pth")):
        flip_a_bit(place, payload_file(place, runs, artifact, file))

    assert len(find_problems(place)) == 3


@BUCKET_IN_SOAK
@pytest.mark.parametrize("damage", [flip_a_bit, halve, lengthen, empty, overwrite])
def test_a_damaged_manifest_is_found(place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]) -> None:
    damage(place, payload_file(place, runs, "weights", "manifest.json"))

    assert wrong(place) == [f"{runs[0].artifacts['weights']}: its manifest is lost or damaged"]


@BUCKET_IN_SOAK
def test_a_swapped_manifest_is_found(place: Place, runs: list[RunRecord]) -> None:
    ours, theirs = (f"{record.artifacts['weights']}/manifest.json" for record in runs)
    place.write(ours, place.read(theirs))

    assert wrong(place) == [f"{runs[0].artifacts['weights']}: its manifest is lost or damaged"]


@BUCKET_IN_SOAK
def test_the_next_run_rebuilds_what_was_found_damaged(place: Place, runs: list[RunRecord]) -> None:
    flip_a_bit(place, payload_file(place, runs, "weights", "cifar_net.pth"))
    delete(place, payload_file(place, runs, "per_class", "per_class.parquet"))

    finished_run(place.location, "one", policy="never")

    assert find_problems(place) == []


# Run records


@BUCKET_IN_SOAK
@pytest.mark.parametrize("damage", [halve, empty, overwrite])
def test_an_unreadable_record_is_found(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(place, f"runs/{runs[0].run}.json")

    [finding] = find_problems(place)

    assert finding.wrong == f"run {runs[0].run}: its record cannot be read"
    assert finding.advice == "restore runs/ from a backup, or delete it"


@BUCKET_IN_SOAK
def test_a_lost_artifact_of_a_run_is_found(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    place.lose(ref)

    [finding] = find_problems(place)

    assert finding.wrong == f"run {runs[0].run}: its {ref} is not in the store"
    assert (finding.advice, finding.known) == ("run again with its settings", False)


@BUCKET_IN_SOAK
def test_a_version_replaced_by_a_later_attempt_is_known(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    flip_a_bit(place, place.name_of(ref, "cifar_net.pth"))
    rebuild_with_other_bytes(place, ref)

    [finding] = find_problems(place)

    assert finding.wrong == f"run {runs[0].run}: its {ref} is not in the store, and a later attempt replaced it"
    assert (finding.advice, finding.known) == ("run again with its settings", True)


def test_a_replaced_version_stays_known_with_an_empty_quarantine(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    flip_a_bit(place, place.name_of(ref, "cifar_net.pth"))
    rebuild_with_other_bytes(place, ref)
    for name in place.all(".quarantine/"):
        place.delete(name)

    assert [finding.known for finding in find_problems(place)] == [True]


@pytest.mark.parametrize("damage", [overwrite, delete])
def test_a_version_without_manifest_is_known_once_rebuilt(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    ref = runs[0].artifacts["weights"]
    manifest = place.open().manifest(ref.name, ref.version)
    assert manifest is not None
    damage(place, f"{ref}/manifest.json")
    assert [finding.known for finding in find_problems(place)] == [False]

    place.open().get_or_create(replace(build_of(dict.fromkeys(manifest.files, b"other")), key=manifest.key))

    assert [finding.known for finding in find_problems(place)] == [True]


@BUCKET_IN_SOAK
def test_a_quarantined_file_does_not_make_a_lost_version_known(place: Place, runs: list[RunRecord]) -> None:
    flip_a_bit(place, payload_file(place, runs, "weights", "cifar_net.pth"))
    finished_run(place.location, "one", policy="never")  # restores the same bytes
    place.lose(runs[0].artifacts["weights"])

    assert [finding.known for finding in find_problems(place)] == [
        False,
        False,
    ]  # of the run, and of the one that rebuilt it


@BUCKET_IN_SOAK
def test_a_version_with_other_bytes_than_recorded_is_found(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    text = place.read(f"runs/{runs[0].run}.json")
    place.write(f"runs/{runs[0].run}.json", text.replace(ref.sha256.encode(), b"0" * 64))

    [finding] = find_problems(place)

    assert finding.wrong == f"run {runs[0].run}: its {ref} holds other bytes now"


@BUCKET_IN_SOAK
def test_collected_runs_have_no_findings(place: Place) -> None:
    for word in ("one", "two"):
        finished_run(place.location, word, policy="never")
    assert len(collect_garbage(place.open(), 0, dry_run=False).runs) == 2

    assert find_problems(place) == []


# Archives


def run_from_an_archive(place: Place, word: str) -> RunRecord:
    """A run with an archive and the dataset built from it."""
    store = place.open()
    raw = store.get_or_create(build_of({"archive.tar.gz": b"archive"}, "raw")).ref
    stage = build_of({"dataset.json": b"dataset"}, "dataset", inputs={"raw": raw.sha256}, settings={"word": word})
    with recording_run(store, {}, {}) as run:
        run.add_artifacts(raw, run.store.get_or_create(replace(stage, inputs=(raw,))).ref)
    return run.record


def lose_a_file(place: Place, ref: ArtifactRef) -> None:
    place.delete(place.name_of(ref, "archive.tar.gz"))


def lose_the_manifest(place: Place, ref: ArtifactRef) -> None:
    overwrite(place, f"{ref}/manifest.json")


LOSSES = [Place.lose, lose_a_file, lose_the_manifest]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_archive_is_known_while_every_dataset_is_intact(
    place: Place, lose: Callable[[Place, ArtifactRef], None]
) -> None:
    one, two = (run_from_an_archive(place, word) for word in ("one", "two"))
    lose(place, one.artifacts["raw"])

    findings = find_problems(place)

    assert findings
    assert {(finding.advice, finding.known) for finding in findings} == {
        ("no run needs it while the dataset is intact; --refresh download rebuilds it", True)
    }

    flip_a_bit(place, place.name_of(two.artifacts["dataset"], "dataset.json"))
    assert not all(finding.known for finding in find_problems(place) if str(one.artifacts["raw"]) in finding.wrong)


@pytest.mark.parametrize("lose", LOSSES)
def test_the_advice_for_a_lost_archive_helps(place: Place, lose: Callable[[Place, ArtifactRef], None]) -> None:
    raw = run_from_an_archive(place, "one").artifacts["raw"]
    lose(place, raw)

    refreshing(place.open()).get_or_create(build_of({"archive.tar.gz": b"archive"}, "raw"))

    assert all(finding.known and "a later attempt replaced it" in finding.wrong for finding in find_problems(place))


@BUCKET_IN_SOAK
def test_a_lost_archive_without_a_dataset_is_needed(place: Place) -> None:
    with recording_run(place.open(), {}, {}) as run:
        run.add_artifacts(run.store.get_or_create(build_of({"archive.tar.gz": b"archive"}, "raw")).ref)
    place.delete(place.name_of(run.record.artifacts["raw"], "archive.tar.gz"))

    assert [(finding.advice, finding.known) for finding in find_problems(place)] == [
        ("the next run that needs it rebuilds it", False)
    ]


# Unreadable files


@FOLDER_ONLY
def test_an_unreadable_payload_is_found_and_rebuilt(folder: FolderPlace, runs: list[RunRecord]) -> None:
    make_unreadable(folder, payload_file(folder, runs, "weights", "cifar_net.pth"))

    assert wrong(folder) == [f"{runs[0].artifacts['weights']}: cifar_net.pth cannot be read: Input/output error"]
    finished_run(folder.location, "one", policy="never")
    assert find_problems(folder) == []


@FOLDER_ONLY
def test_an_unreadable_piece_does_not_hide_the_others(folder: FolderPlace, runs: list[RunRecord]) -> None:
    record = f"runs/{runs[0].run}.json"
    make_unreadable(folder, record)
    flip_a_bit(folder, "per_class.parquet")

    unreadable, damaged = find_problems(folder)

    assert unreadable.wrong == f"{folder.root}/{record}: cannot be read: Input/output error"
    assert unreadable.advice == "check the disk and the permissions"
    assert damaged.wrong.startswith("at the root: per_class.parquet is damaged")


# The promotion log


def test_a_log_that_lacks_promoted_runs_is_found(place: Place, runs: list[RunRecord]) -> None:
    first, second = place.read("promotions.jsonl").splitlines(keepends=True)

    place.write("promotions.jsonl", second)
    [finding] = find_problems(place)
    assert finding.wrong == (
        f"promotions.jsonl: 1 runs that were promoted by their records are missing, such as {runs[0].run}"
    )

    place.write("promotions.jsonl", first)
    assert wrong(place)[1] == f"promotions.jsonl: the promotion of the current run {runs[1].run} is missing"


# The current run


@BUCKET_IN_SOAK
@pytest.mark.parametrize("name", ROOT_FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, delete])
def test_a_damaged_root_file_is_found_and_restored(
    place: Place, runs: list[RunRecord], name: str, damage: Callable[[Place, str], None]
) -> None:
    damage(place, name)

    [finding] = find_problems(place)
    assert finding.wrong.startswith(f"at the root: {name} is ")
    assert finding.advice == "the next run repairs it"

    open_store(place.location)
    assert find_problems(place) == []
    assert runs


@BUCKET_IN_SOAK
@pytest.mark.parametrize("damage", [halve, empty, overwrite])
def test_a_damaged_current_json_is_found(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(place, "current.json")

    [finding] = find_problems(place)

    got = "nothing" if damage is empty else "something else"
    assert finding.wrong.endswith(f"current.json: expected the current run, got {got}")
    assert finding.advice == "the next run repairs it"
    assert runs


def test_a_missing_current_json_is_found_and_restored(place: Place, runs: list[RunRecord]) -> None:
    place.delete("current.json")

    [finding] = find_problems(place)
    assert finding.wrong == f"{place.location}/current.json: expected the current run, got nothing"
    assert finding.advice == "the next run repairs it"

    open_store(place.location)
    assert find_problems(place) == []
    assert runs


def test_a_missing_current_json_without_a_log_needs_advice(place: Place, runs: list[RunRecord]) -> None:
    place.delete("current.json")
    place.delete("promotions.jsonl")

    finding = find_problems(place)[-1]

    assert finding.wrong == f"{place.location}/current.json: expected the current run, got nothing"
    assert finding.advice == "name it by `cifar promote RUN`"
    assert runs


@BUCKET_IN_SOAK
def test_lost_pieces_of_the_current_run_are_found(place: Place, runs: list[RunRecord]) -> None:
    current, report = runs[1].run, runs[1].artifacts["report"]
    place.delete(f"runs/{current}.json")
    place.lose(report)

    assert wrong(place) == [
        f"run {current}: it was promoted, and has no record",
        f"run {current}: the current run's {report} is lost",
    ]


@BUCKET_IN_SOAK
def test_torn_lines_of_the_log_are_counted(place: Place, runs: list[RunRecord]) -> None:
    place.write("promotions.jsonl", b'{"action"\n' + place.read("promotions.jsonl") + b"\0\0\0")

    assert wrong(place) == ["promotions.jsonl: 2 lines cannot be read"]
    assert runs
