"""Verification finds whatever is not as it was stored, and nothing on a store that is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from places import (
    BUCKET_BY_SOAK,
    IN_A_FOLDER,
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
from tiny_artifacts import finished_run, quiet, stage_of

from tasks.core.store import ArtifactRef, open_store
from tasks.core.store.gc import collect_garbage
from tasks.core.store.opening import open_without_repair
from tasks.core.store.runs import RunRecord, recording_run
from tasks.core.store.storage import ROOT_FILES
from tasks.core.store.verify import Finding, verify


@pytest.fixture
def runs(place: Place) -> list[RunRecord]:
    """Two promoted runs, the newer one of which is the current one."""
    return [finished_run(place.location, word).record for word in ("one", "two")]


def found(place: Place) -> list[Finding]:
    return [finding for _, findings in verify(open_without_repair(place.location, quiet)) for finding in findings]


def wrong(place: Place) -> list[str]:
    return [finding.wrong for finding in found(place)]


def payload_file(place: Place, runs: list[RunRecord], artifact: str, file: str) -> str:
    """The name of a file of the older run, which nothing at the root stands for."""
    return place.name_of(runs[0].artifacts[artifact], file)


def remade_otherwise(place: Place, ref: ArtifactRef) -> None:
    """Have a damaged version replaced by other bytes for the same key, as a GPU may."""
    store = place.open()
    manifest = store.manifest(ref.name, ref.version)
    assert manifest is not None
    stage = stage_of(dict.fromkeys(manifest.files, b"other bytes"))
    store.get_or_create(replace(stage, key=manifest.key), quiet)


@BUCKET_BY_SOAK
def test_nothing_is_wrong_with_an_empty_store(place: Place) -> None:
    assert found(place) == []


@BUCKET_BY_SOAK
def test_nothing_is_wrong_with_an_intact_store_and_every_piece_of_it_is_named(
    place: Place, runs: list[RunRecord]
) -> None:
    pieces = dict(verify(place.open()))

    refs = {str(ref) for record in runs for ref in record.artifacts.values()}
    assert set(pieces) == refs | {f"run {record.run}" for record in runs} | {"promotions", "current run"}
    assert not any(pieces.values())


@BUCKET_BY_SOAK
def test_nothing_is_wrong_while_a_run_is_in_progress_or_after_it_failed(place: Place) -> None:
    with recording_run(place.open(), {}, {}, quiet):
        assert found(place) == []
    with pytest.raises(ZeroDivisionError), recording_run(place.open(), {}, {}, quiet):
        raise ZeroDivisionError

    assert found(place) == []


@BUCKET_BY_SOAK
def test_verifying_changes_nothing(place: Place, runs: list[RunRecord]) -> None:
    flip_a_bit(place, payload_file(place, runs, "weights", "cifar_net.pth"))
    before = place.all()

    assert len(found(place)) == 1

    assert place.all() == before


# Payloads


@BUCKET_BY_SOAK
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
def test_every_damage_of_a_payload_is_found_with_what_it_is(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None], words: str
) -> None:
    damage(place, payload_file(place, runs, "weights", "cifar_net.pth"))

    [finding] = found(place)

    assert finding.wrong == f"{runs[0].artifacts['weights']}: cifar_net.pth {words}"
    assert (finding.advice, finding.known) == ("the next run that needs it makes it anew", False)


@IN_A_FOLDER
def test_a_flipped_bit_is_found_though_size_and_time_are_as_before_and_the_bytes_were_checked_already(
    folder: FolderPlace, runs: list[RunRecord]
) -> None:
    store, name = folder.open(), payload_file(folder, runs, "weights", "cifar_net.pth")
    before = (folder.root / name).stat()
    store.open(runs[0].artifacts["weights"])

    flip_a_bit(folder, name)

    after = (folder.root / name).stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert [len(findings) for _, findings in verify(store) if findings] == [1]


@BUCKET_BY_SOAK
def test_every_damaged_file_is_found_not_only_the_first(place: Place, runs: list[RunRecord]) -> None:
    for artifact, file in (("report", "metrics.json"), ("report", "report.html"), ("weights", "cifar_net.pth")):
        flip_a_bit(place, payload_file(place, runs, artifact, file))

    assert len(found(place)) == 3


@BUCKET_BY_SOAK
@pytest.mark.parametrize("damage", [flip_a_bit, halve, lengthen, empty, overwrite])
def test_a_damaged_manifest_is_found(place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]) -> None:
    damage(place, payload_file(place, runs, "weights", "manifest.json"))

    assert wrong(place) == [f"{runs[0].artifacts['weights']}: its manifest is lost or damaged"]


@BUCKET_BY_SOAK
def test_a_manifest_in_the_place_of_another_one_is_found(place: Place, runs: list[RunRecord]) -> None:
    ours, theirs = (f"{record.artifacts['weights']}/manifest.json" for record in runs)
    place.write(ours, place.read(theirs))

    assert wrong(place) == [f"{runs[0].artifacts['weights']}: its manifest is lost or damaged"]


@BUCKET_BY_SOAK
def test_what_is_found_is_put_right_by_the_next_run_that_needs_it(place: Place, runs: list[RunRecord]) -> None:
    flip_a_bit(place, payload_file(place, runs, "weights", "cifar_net.pth"))
    delete(place, payload_file(place, runs, "per_class", "per_class.parquet"))

    finished_run(place.location, "one", policy="never")

    assert found(place) == []


# Run records


@BUCKET_BY_SOAK
@pytest.mark.parametrize("damage", [halve, empty, overwrite])
def test_a_record_that_cannot_be_read_is_found(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(place, f"runs/{runs[0].run}.json")

    [finding] = found(place)

    assert finding.wrong == f"run {runs[0].run}: its record cannot be read"
    assert finding.advice == "restore runs/ from a backup, or delete it"


@BUCKET_BY_SOAK
def test_an_artifact_of_a_run_that_is_gone_is_found(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    place.lose(ref)

    [finding] = found(place)

    assert finding.wrong == f"run {runs[0].run}: its {ref} is not in the store"
    assert (finding.advice, finding.known) == ("run again with its settings", False)


@BUCKET_BY_SOAK
def test_what_was_set_aside_for_other_bytes_is_known(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    flip_a_bit(place, place.name_of(ref, "cifar_net.pth"))
    remade_otherwise(place, ref)

    [finding] = found(place)

    assert finding.wrong == f"run {runs[0].run}: its {ref} is not in the store, and was made anew as a later attempt"
    assert (finding.advice, finding.known) == ("run again with its settings", True)


def test_what_was_set_aside_stays_known_when_the_quarantine_is_emptied(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    flip_a_bit(place, place.name_of(ref, "cifar_net.pth"))
    remade_otherwise(place, ref)
    for name in place.all(".quarantine/"):
        place.delete(name)

    assert [finding.known for finding in found(place)] == [True]


@pytest.mark.parametrize("damage", [overwrite, delete])
def test_what_stood_without_a_manifest_is_known_once_it_was_made_anew(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    ref = runs[0].artifacts["weights"]
    manifest = place.open().manifest(ref.name, ref.version)
    assert manifest is not None
    damage(place, f"{ref}/manifest.json")
    assert [finding.known for finding in found(place)] == [False]

    place.open().get_or_create(replace(stage_of(dict.fromkeys(manifest.files, b"other")), key=manifest.key), quiet)

    assert [finding.known for finding in found(place)] == [True]


@BUCKET_BY_SOAK
def test_a_single_file_that_was_set_aside_does_not_make_a_lost_version_known(
    place: Place, runs: list[RunRecord]
) -> None:
    flip_a_bit(place, payload_file(place, runs, "weights", "cifar_net.pth"))
    finished_run(place.location, "one", policy="never")  # puts the same bytes back
    place.lose(runs[0].artifacts["weights"])

    assert [finding.known for finding in found(place)] == [False, False]  # of the run, and of the one that healed it


@BUCKET_BY_SOAK
def test_a_version_with_other_bytes_than_the_runs_is_found(place: Place, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    text = place.read(f"runs/{runs[0].run}.json")
    place.write(f"runs/{runs[0].run}.json", text.replace(ref.sha256.encode(), b"0" * 64))

    [finding] = found(place)

    assert finding.wrong == f"run {runs[0].run}: its {ref} holds other bytes now"


@BUCKET_BY_SOAK
def test_nothing_is_missed_of_runs_whose_artifacts_were_collected(place: Place) -> None:
    for word in ("one", "two"):
        finished_run(place.location, word, policy="never")
    assert len(collect_garbage(place.open(), 0, quiet, dry_run=False).runs) == 2

    assert found(place) == []


# Archives


def run_from_an_archive(place: Place, word: str) -> RunRecord:
    """A run whose dataset was made from an archive; nothing else is."""
    store = place.open()
    raw = store.get_or_create(stage_of({"archive.tar.gz": b"archive"}, "raw"), quiet).ref
    stage = stage_of({"dataset.json": b"dataset"}, "dataset", inputs={"raw": raw.sha256}, settings={"word": word})
    with recording_run(store, {}, {}, quiet) as run:
        run.keep(raw, run.store.get_or_create(replace(stage, inputs=(raw,)), quiet).ref)
    return run.record


def lose_a_file(place: Place, ref: ArtifactRef) -> None:
    place.delete(place.name_of(ref, "archive.tar.gz"))


def lose_the_manifest(place: Place, ref: ArtifactRef) -> None:
    overwrite(place, f"{ref}/manifest.json")


LOSSES = [Place.lose, lose_a_file, lose_the_manifest]


@pytest.mark.parametrize("lose", LOSSES)
def test_a_lost_archive_is_known_while_the_dataset_of_every_run_that_has_it_is_intact(
    place: Place, lose: Callable[[Place, ArtifactRef], None]
) -> None:
    one, two = (run_from_an_archive(place, word) for word in ("one", "two"))
    lose(place, one.artifacts["raw"])

    findings = found(place)

    assert findings
    assert {(finding.advice, finding.known) for finding in findings} == {
        ("no run needs it while the dataset is intact; --refresh download makes it anew", True)
    }

    flip_a_bit(place, place.name_of(two.artifacts["dataset"], "dataset.json"))
    assert not all(finding.known for finding in found(place) if str(one.artifacts["raw"]) in finding.wrong)


@pytest.mark.parametrize("lose", LOSSES)
def test_what_is_advised_for_a_lost_archive_helps(place: Place, lose: Callable[[Place, ArtifactRef], None]) -> None:
    raw = run_from_an_archive(place, "one").artifacts["raw"]
    lose(place, raw)

    place.open().get_or_create(stage_of({"archive.tar.gz": b"archive"}, "raw"), quiet, refresh=True)

    assert all(finding.known and "as a later attempt" in finding.wrong for finding in found(place))


@BUCKET_BY_SOAK
def test_a_lost_archive_that_no_dataset_was_made_of_is_needed(place: Place) -> None:
    with recording_run(place.open(), {}, {}, quiet) as run:
        run.keep(run.store.get_or_create(stage_of({"archive.tar.gz": b"archive"}, "raw"), quiet).ref)
    place.delete(place.name_of(run.record.artifacts["raw"], "archive.tar.gz"))

    assert [(finding.advice, finding.known) for finding in found(place)] == [
        ("the next run that needs it makes it anew", False)
    ]


# What cannot be read


@IN_A_FOLDER
def test_a_payload_that_cannot_be_read_is_found_as_such_and_made_anew(
    folder: FolderPlace, runs: list[RunRecord]
) -> None:
    make_unreadable(folder, payload_file(folder, runs, "weights", "cifar_net.pth"))

    assert wrong(folder) == [f"{runs[0].artifacts['weights']}: cifar_net.pth cannot be read: Input/output error"]
    finished_run(folder.location, "one", policy="never")
    assert found(folder) == []


@IN_A_FOLDER
def test_every_other_piece_is_checked_though_one_cannot_be_read(folder: FolderPlace, runs: list[RunRecord]) -> None:
    record = f"runs/{runs[0].run}.json"
    make_unreadable(folder, record)
    flip_a_bit(folder, "per_class.parquet")

    unreadable, damaged = found(folder)

    assert unreadable.wrong == f"{folder.root}/{record}: cannot be read: Input/output error"
    assert unreadable.advice == "check the disk, and who may read it"
    assert damaged.wrong.startswith("at the root: per_class.parquet is damaged")


# The log of promotions


def test_a_log_that_lacks_promoted_runs_is_found(place: Place, runs: list[RunRecord]) -> None:
    first, second = place.read("promotions.jsonl").splitlines(keepends=True)

    place.write("promotions.jsonl", second)
    [finding] = found(place)
    assert finding.wrong == (
        f"promotions.jsonl: it lacks 1 of the runs that were promoted by their records, as {runs[0].run}"
    )

    place.write("promotions.jsonl", first)
    assert wrong(place)[1] == f"promotions.jsonl: it lacks the promotion of the current run {runs[1].run}"


# The current run


@BUCKET_BY_SOAK
@pytest.mark.parametrize("name", ROOT_FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, delete])
def test_a_damaged_root_file_is_found_and_put_right_by_the_next_run(
    place: Place, runs: list[RunRecord], name: str, damage: Callable[[Place, str], None]
) -> None:
    damage(place, name)

    [finding] = found(place)
    assert finding.wrong.startswith(f"at the root: {name} is ")
    assert finding.advice == "the next run puts it right"

    open_store(place.location, quiet)
    assert found(place) == []
    assert runs


@BUCKET_BY_SOAK
@pytest.mark.parametrize("damage", [halve, empty, overwrite])
def test_a_garbled_current_json_is_found(
    place: Place, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(place, "current.json")

    [finding] = found(place)

    got = "nothing" if damage is empty else "something else"
    assert finding.wrong.endswith(f"current.json: expected the current run, got {got}")
    assert finding.advice == "the next run puts it right"
    assert runs


def test_a_missing_current_json_is_found_and_put_right_by_the_next_run(place: Place, runs: list[RunRecord]) -> None:
    place.delete("current.json")

    [finding] = found(place)
    assert finding.wrong == f"{place.location}/current.json: expected the current run, got nothing"
    assert finding.advice == "the next run puts it right"

    open_store(place.location, quiet)
    assert found(place) == []
    assert runs


def test_a_missing_current_json_that_the_log_cannot_tell_is_to_be_named(place: Place, runs: list[RunRecord]) -> None:
    place.delete("current.json")
    place.delete("promotions.jsonl")

    finding = found(place)[-1]

    assert finding.wrong == f"{place.location}/current.json: expected the current run, got nothing"
    assert finding.advice == "name it by `cifar promote RUN`"
    assert runs


@BUCKET_BY_SOAK
def test_lost_records_and_artifacts_of_the_current_run_are_found_as_such(place: Place, runs: list[RunRecord]) -> None:
    current, report = runs[1].run, runs[1].artifacts["report"]
    place.delete(f"runs/{current}.json")
    place.lose(report)

    assert wrong(place) == [
        f"run {current}: it was promoted, and has no record",
        f"run {current}: the current run's {report} is lost",
    ]


@BUCKET_BY_SOAK
def test_torn_lines_of_the_log_are_counted(place: Place, runs: list[RunRecord]) -> None:
    place.write("promotions.jsonl", b'{"action"\n' + place.read("promotions.jsonl") + b"\0\0\0")

    assert wrong(place) == ["promotions.jsonl: 2 lines cannot be read"]
    assert runs
