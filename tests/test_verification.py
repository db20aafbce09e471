"""Verification finds whatever is not as it was stored, and nothing on a store that is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from places import FolderPlace, Place, delete, empty, flip_a_bit, lengthen, overwrite, truncate
from tiny_artifacts import finished_run, quiet, stage_of

from tasks.core.store import ArtifactRef, open_store
from tasks.core.store.collection import collect
from tasks.core.store.current import ROOT_FILES
from tasks.core.store.runs import RunRecord, recorded_run
from tasks.core.store.verification import Finding, verify
from tasks.core.store.versions import open_unsettled


def halve(place: Place, name: str) -> None:
    content = place.read(name)
    place.write(name, content[: len(content) // 2])


@pytest.fixture
def runs(folder: FolderPlace) -> list[RunRecord]:
    """Two promoted runs, the newer one of which is the current one."""
    return [finished_run(folder.location, word).record for word in ("one", "two")]


def found(place: Place) -> list[Finding]:
    return [finding for _, findings in verify(open_unsettled(place.location)) for finding in findings]


def wrong(place: Place) -> list[str]:
    return [finding.wrong for finding in found(place)]


def payload_file(runs: list[RunRecord], artifact: str, file: str) -> str:
    """The name of a file of the older run, which nothing at the root stands for."""
    return f"{runs[0].artifacts[artifact]}/{file}"


def remade_otherwise(place: Place, ref: ArtifactRef) -> None:
    """Have a damaged version replaced by other bytes for the same key, as a GPU may."""
    store = place.open()
    manifest = store.manifest(ref.name, ref.version)
    assert manifest is not None
    stage = stage_of(dict.fromkeys(manifest.files, b"other bytes"))
    store.get_or_create(replace(stage, key=manifest.key), quiet)


def test_nothing_is_wrong_with_an_empty_store(folder: FolderPlace) -> None:
    assert found(folder) == []


def test_nothing_is_wrong_with_an_intact_store_and_every_piece_of_it_is_named(
    folder: FolderPlace, runs: list[RunRecord]
) -> None:
    pieces = dict(verify(folder.open()))

    refs = {str(ref) for record in runs for ref in record.artifacts.values()}
    assert set(pieces) == refs | {f"run {record.run}" for record in runs} | {"current run"}
    assert not any(pieces.values())


def test_nothing_is_wrong_while_a_run_is_in_progress_or_after_it_failed(folder: FolderPlace) -> None:
    with recorded_run(folder.open(), {}, {}, quiet):
        assert found(folder) == []
    with pytest.raises(ZeroDivisionError), recorded_run(folder.open(), {}, {}, quiet):
        raise ZeroDivisionError

    assert found(folder) == []


def test_verifying_changes_nothing(folder: FolderPlace, runs: list[RunRecord]) -> None:
    flip_a_bit(folder, payload_file(runs, "weights", "cifar_net.pth"))
    before = folder.all()

    assert len(found(folder)) == 1

    assert folder.all() == before


# Payloads


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
    folder: FolderPlace, runs: list[RunRecord], damage: Callable[[Place, str], None], words: str
) -> None:
    damage(folder, payload_file(runs, "weights", "cifar_net.pth"))

    [finding] = found(folder)

    assert finding.wrong == f"{runs[0].artifacts['weights']}: cifar_net.pth {words}"
    assert (finding.advice, finding.known) == ("the next run that needs it makes it anew", False)


def test_a_flipped_bit_is_found_though_size_and_time_are_as_before_and_the_bytes_were_checked_already(
    folder: FolderPlace, runs: list[RunRecord]
) -> None:
    store, name = folder.open(), payload_file(runs, "weights", "cifar_net.pth")
    before = (folder.root / name).stat()
    store.open(runs[0].artifacts["weights"])

    flip_a_bit(folder, name)

    after = (folder.root / name).stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert [len(findings) for _, findings in verify(store) if findings] == [1]


def test_every_damaged_file_is_found_not_only_the_first(folder: FolderPlace, runs: list[RunRecord]) -> None:
    for artifact, file in (("report", "metrics.json"), ("report", "report.html"), ("weights", "cifar_net.pth")):
        flip_a_bit(folder, payload_file(runs, artifact, file))

    assert len(found(folder)) == 3


@pytest.mark.parametrize("damage", [flip_a_bit, halve, lengthen, empty, overwrite])
def test_a_damaged_manifest_is_found(
    folder: FolderPlace, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(folder, payload_file(runs, "weights", "manifest.json"))

    assert wrong(folder) == [f"{runs[0].artifacts['weights']}: its manifest is lost or damaged"]


def test_a_manifest_in_the_place_of_another_one_is_found(folder: FolderPlace, runs: list[RunRecord]) -> None:
    ours, theirs = (f"{record.artifacts['weights']}/manifest.json" for record in runs)
    folder.write(ours, folder.read(theirs))

    assert wrong(folder) == [f"{runs[0].artifacts['weights']}: its manifest is lost or damaged"]


def test_what_is_found_is_put_right_by_the_next_run_that_needs_it(folder: FolderPlace, runs: list[RunRecord]) -> None:
    flip_a_bit(folder, payload_file(runs, "weights", "cifar_net.pth"))
    delete(folder, payload_file(runs, "per_class", "per_class.parquet"))

    finished_run(folder.location, "one", policy="never")

    assert found(folder) == []


# Run records


@pytest.mark.parametrize("damage", [halve, empty, overwrite])
def test_a_record_that_cannot_be_read_is_found(
    folder: FolderPlace, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(folder, f"runs/{runs[0].run}.json")

    [finding] = found(folder)

    assert finding.wrong == f"run {runs[0].run}: its record cannot be read"
    assert finding.advice == "restore runs/ from a backup, or delete it"


def test_an_artifact_of_a_run_that_is_gone_is_found(folder: FolderPlace, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    folder.lose(ref)

    [finding] = found(folder)

    assert finding.wrong == f"run {runs[0].run}: its {ref} is not in the store"
    assert (finding.advice, finding.known) == ("run again with its settings", False)


def test_what_was_set_aside_for_other_bytes_is_known(folder: FolderPlace, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    flip_a_bit(folder, f"{ref}/cifar_net.pth")
    remade_otherwise(folder, ref)

    [finding] = found(folder)

    assert finding.wrong == f"run {runs[0].run}: its {ref} was damaged and set aside"
    assert (finding.advice, finding.known) == ("run again with its settings", True)


def test_a_single_file_that_was_set_aside_does_not_make_a_lost_version_known(
    folder: FolderPlace, runs: list[RunRecord]
) -> None:
    flip_a_bit(folder, payload_file(runs, "weights", "cifar_net.pth"))
    finished_run(folder.location, "one", policy="never")  # puts the same bytes back
    folder.lose(runs[0].artifacts["weights"])

    assert [finding.known for finding in found(folder)] == [False, False]  # of the run, and of the one that healed it


def test_a_version_with_other_bytes_than_the_runs_is_found(folder: FolderPlace, runs: list[RunRecord]) -> None:
    ref = runs[0].artifacts["weights"]
    text = folder.read(f"runs/{runs[0].run}.json")
    folder.write(f"runs/{runs[0].run}.json", text.replace(ref.sha256.encode(), b"0" * 64))

    [finding] = found(folder)

    assert finding.wrong == f"run {runs[0].run}: its {ref} holds other bytes now"


def test_nothing_is_missed_of_runs_whose_artifacts_were_collected(folder: FolderPlace) -> None:
    for word in ("one", "two"):
        finished_run(folder.location, word, policy="never")
    assert len(collect(folder.open(), 0, quiet, dry_run=False).runs) == 2

    assert found(folder) == []


# The current run


@pytest.mark.parametrize("name", ROOT_FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, delete])
def test_a_damaged_root_file_is_found_and_put_right_by_the_next_run(
    folder: FolderPlace, runs: list[RunRecord], name: str, damage: Callable[[Place, str], None]
) -> None:
    damage(folder, name)

    [finding] = found(folder)
    assert finding.wrong.startswith(f"at the root: {name} is ")
    assert finding.advice == "the next run puts it right"

    open_store(folder.location, quiet)
    assert found(folder) == []
    assert runs


@pytest.mark.parametrize("damage", [halve, empty, overwrite])
def test_a_garbled_current_json_is_found(
    folder: FolderPlace, runs: list[RunRecord], damage: Callable[[Place, str], None]
) -> None:
    damage(folder, "current.json")

    [finding] = found(folder)

    assert finding.wrong.endswith("current.json: expected a promoted run, got something else")
    assert finding.advice == "delete it to promote anew"
    assert runs


def test_lost_records_and_artifacts_of_the_current_run_are_found_as_such(
    folder: FolderPlace, runs: list[RunRecord]
) -> None:
    current, report = runs[1].run, runs[1].artifacts["report"]
    folder.delete(f"runs/{current}.json")
    folder.lose(report)

    assert wrong(folder) == [
        f"run {current}: the current run has no record",
        f"run {current}: the current run's {report} is lost",
    ]


def test_torn_lines_of_the_log_are_counted(folder: FolderPlace, runs: list[RunRecord]) -> None:
    folder.write("promotions.jsonl", b'{"action"\n' + folder.read("promotions.jsonl") + b"\0\0\0")

    assert wrong(folder) == ["promotions.jsonl: 2 lines cannot be read"]
    assert runs
