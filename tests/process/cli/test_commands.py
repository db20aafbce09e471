"""The `cifar` command: what it says of a store of two real runs, without changing anything."""

import json
from pathlib import Path

import pytest
from command import Cifar
from places import flip_a_bit, make_unreadable
from tiny_artifacts import quiet

from flows.cli.app import main
from tasks.core.evaluation.paired import Comparison
from tasks.core.reports.compare.summary import Summary
from tasks.core.store.gc import collect_garbage
from tasks.core.store.history import HistoryRow
from tasks.core.store.lineage import Lineage
from tasks.core.store.runs import RunRecord, recording_run

# history


def test_history_is_a_line_for_each_run_newest_first(cifar: Cifar) -> None:
    header, newest, oldest = cifar("history").splitlines()

    assert header.split("  ")[0] == "run"
    for column in ("when (UTC)", "who", "recipe", "dataset", "accuracy", "95% interval", "standing"):
        assert column in header
    for line, name, standing in ((newest, "current", "current"), (oldest, "previous", "promoted")):
        record = cifar.run(name)
        assert record.score
        assert record.dataset
        cells = [cell.strip() for cell in line.split("  ") if cell.strip()]
        assert cells[:2] == [record.run, f"{record.score.correct}.00%"]
        assert {standing, f"tutorial, epochs 1, seed {record.settings['seed']}", record.dataset.name} < set(cells)
        assert cells[-2:] == [record.started[:16].replace("T", " "), record.who]


def test_history_can_be_cut_short(cifar: Cifar) -> None:
    assert len(cifar("history", "--limit", "1").splitlines()) == 2
    assert [row["run"] for row in cifar.json("history", "--limit", "1")] == [cifar.run("current").run]
    assert cifar.json("history", "--limit", "0") == []
    assert "limit" in cifar.refused("history", "--limit", "-1")


def test_history_tells_runs_that_failed_or_were_collected(cifar_on_tiny: Cifar) -> None:
    with pytest.raises(ZeroDivisionError), recording_run(cifar_on_tiny.store, {}, {}, quiet):
        raise ZeroDivisionError
    collect_garbage(cifar_on_tiny.store, 2, quiet, dry_run=False)

    lines = cifar_on_tiny("history").splitlines()[1:]

    for line, standing in zip(lines, ("failed", "refused", "refused, collected", "current"), strict=True):
        assert f"  {standing}  " in line


def test_history_for_machines_has_every_documented_field(cifar: Cifar) -> None:
    rows = cifar.json("history")

    assert [set(row) for row in rows] == [set(HistoryRow.model_fields)] * 2
    assert [row["standing"] for row in rows] == ["current", "promoted"]


# show


def test_show_of_a_run_is_its_record(cifar: Cifar) -> None:
    record = cifar.run("current")
    assert record.score
    assert record.verdict

    said = cifar("show", "current")

    lines = dict(line.split(maxsplit=1) for line in said.splitlines())
    assert (lines["run"], lines["status"], lines["who"]) == (record.run, "completed", record.who)
    assert lines["accuracy"].startswith(f"{record.score.correct}.00% ({record.score.correct} of 100 right), 95%")
    assert lines["verdict"] == record.verdict
    assert lines["weights"] == str(record.artifacts["weights"])
    assert "epochs 1" in lines["settings"]
    assert cifar("show", record.run) == cifar("show", record.run[:-1]) == said
    assert RunRecord.model_validate(cifar.json("show", record.run)) == record


def test_show_of_a_version_is_its_manifest_and_its_lineage_up_and_down(cifar: Cifar) -> None:
    record = cifar.run("current")
    refs = record.artifacts

    said = cifar("show", str(refs["weights"]))

    facts, _, lineage = said.partition("made from\n")
    made_from, _, used_for = lineage.partition("used for\n")
    lines = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert (lines["version"], lines["sha256"]) == (str(refs["weights"]), refs["weights"].sha256)
    assert json.loads(lines["settings"])["seed"] == 2
    assert "cifar_net.pth (" in lines["files"]
    assert said.count(record.run) == 2  # by run, in runs
    assert [line.split(",")[0] for line in made_from.splitlines()] == [f"  {refs['dataset']}", f"    {refs['raw']}"]
    assert used_for.split() == [str(refs["predictions"]), str(refs["report"])]
    assert cifar("show", f"weights/{refs['weights'].version[:6]}") == said

    lineage_in_json = Lineage.model_validate(cifar.json("show", str(refs["weights"])))
    assert lineage_in_json.manifest.ref == refs["weights"]


def test_show_of_an_archive_and_of_a_report_says_that_nothing_is_above_or_below(cifar: Cifar) -> None:
    refs = cifar.run("current").artifacts

    assert "made from nothing in the store\n" in cifar("show", str(refs["raw"]))
    assert "used for nothing in the store\n" in cifar("show", str(refs["report"]))


def test_long_values_stay_whole_on_one_line_where_nobody_looks_at_a_terminal(cifar_on_tiny: Cifar) -> None:
    words = "expected one thing, got another " * 100
    with pytest.raises(RuntimeError), recording_run(cifar_on_tiny.store, {}, {}, quiet) as run:
        raise RuntimeError(words)

    assert f"failed: RuntimeError: {words.strip()}\n" in cifar_on_tiny("show", run.record.run)


# compare


def test_compare_says_what_changed_over_all_and_class_by_class(cifar: Cifar) -> None:
    found = Comparison.model_validate(cifar.json("compare", "previous", "current"))
    assert (found.images, len(found.per_class)) == (100, 10)

    lines = cifar("compare", "previous", "current").splitlines()

    assert lines[0].split()[-3:] == ["fixed", "broken", "images"]
    first, second, fixed, broken = found.first_correct, found.second_correct, found.fixed, found.broken
    overall = lines[1].split()
    assert overall[:4] == ["all", f"{first}.00%", f"{second}.00%", f"{second - first:+}.00"]
    assert overall[-4:] == [f"{found.mcnemar_p:.2g}", str(fixed), str(broken), "100"]
    assert [line.split()[0] for line in lines[2:12]] == [row.class_name for row in found.per_class]
    said = "\n".join(lines[12:])
    for part in (cifar.run("previous").run, cifar.run("current").run, f"fixed: {fixed} image", f"broken: {broken} "):
        assert part in said


def test_compare_holds_several_runs_against_the_first_and_says_what_differs(cifar: Cifar) -> None:
    names = ("previous", "current", "previous")
    found = Summary.model_validate(cifar.json("compare", *names))
    other, itself = (change.comparison for change in found.changes)

    head, first, *others = cifar("compare", *names).splitlines()

    assert head.split()[-7:] == ["interval", "p", "fixed", "broken", "log", "loss", "ECE"]
    assert first.split()[:3] == ["A", cifar.run("previous").run, f"{other.first_correct}.00%"]
    for line, letter, told in zip(others, "BC", (other, itself), strict=False):
        assert line.split()[0] == letter
        assert f"{100 * told.difference.value:+.2f}" in line
    said = "\n".join(others[2:])
    assert "differing  A  B  C\nseed       1  2  1\n" in said
    assert "C and A give the same answer for every image" in said
    assert "GENERATED IMAGES, NOT CIFAR-10" in said


# path


def test_path_is_one_line_with_a_file_that_is_there(cifar: Cifar) -> None:
    for run in ("current", "previous"):
        [line] = cifar("path", "per_class", "--run", run).splitlines()
        assert Path(line) == cifar.root / str(cifar.run(run).artifacts["per_class"]) / "per_class.parquet"
        assert Path(line).is_file()
    assert Path(cifar("path", "weights").rstrip("\n")).is_dir()


def test_path_of_damaged_bytes_is_no_path(cifar: Cifar) -> None:
    ref = cifar.run("current").artifacts["per_class"]
    flip_a_bit(cifar.place, f"{ref}/per_class.parquet")

    assert cifar.refused("path", "per_class", exit_code=1) == (
        f"{ref}: per_class.parquet is damaged: its bytes are not those that were stored; run again to have it made anew"
    )


# All of them


@pytest.mark.parametrize(
    "arguments",
    [
        ("history",),
        ("show", "current"),
        ("compare", "previous", "current"),
        ("compare", "previous", "current", "previous"),
        ("compare-page", "previous", "current"),
        ("promote", "previous"),
        ("rollback", "--why", "a typo"),
        ("verify",),
        ("gc", "--keep", "1"),
        ("path", "per_class"),
        ("export", "current", "--format", "onnx"),
    ],
)
def test_a_mistyped_store_is_refused_and_not_made(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mistyped = tmp_path / "artefacts"

    assert Cifar(mistyped, capsys).refused(*arguments) == (
        f"store {mistyped}: there is none yet; give another one by --store, or make it by `cifar run`"
    )
    assert not mistyped.exists()


def test_explaining_where_there_is_no_store_is_about_an_empty_one_and_makes_none(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "artifacts"

    assert main(["run", "--explain", "--source", str(archive), "--store", str(nowhere)]) == 0

    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == ["download runs for the first time", "normalize runs for the first time"]
    assert printed.err == f"store {nowhere}: there is none yet; the run would make it\n"
    assert not nowhere.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("history",),
        ("show", "previous"),
        ("compare", "previous", "current"),
        ("promote", "previous"),
        ("rollback", "--why", "a typo"),
        ("verify",),
        ("gc", "--keep", "1"),
        ("path", "per_class", "--run", "previous"),
    ],
)
def test_what_cannot_be_read_is_said_without_a_traceback(cifar: Cifar, arguments: tuple[str, ...]) -> None:
    make_unreadable(cifar.place, f"runs/{cifar.run('previous').run}.json")

    exit_code = main([*arguments, "--store", str(cifar.root)])

    printed, complaint = cifar.capsys.readouterr()
    [line] = complaint.splitlines() or printed.splitlines()[:1]
    assert exit_code == 1
    assert "cannot be read: Input/output error; check the disk" in line


def test_the_store_of_the_environment_is_used_where_none_is_named(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIFAR_FLOW_STORE", str(artifacts))

    assert main(["path", "per_class"]) == 0
    assert capsys.readouterr().out.startswith(str(artifacts))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nope"], "run 'nope': expected the id of a run in "),
        (["show", "weights/zz"], "weights/zz: expected NAME/VERSION of one version in the store, got 0 that begin so"),
        (["path", "nope"], "expected one of its artifacts (data_checks, dataset, per_class, predictions, raw, report"),
        (["compare", "current"], 'Command "compare" parameter SECOND requires an argument; see --help'),
        (["history", "--jsn"], "Unknown option: --jsn. Did you mean --json?"),
        (["export", "current", "--format", "tflite"], "onnx"),
        (["histroy"], 'Unknown command "histroy"'),
        (["histroy"], "...; see --help"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(cifar: Cifar, arguments: list[str], words: str) -> None:
    assert words in cifar.refused(*arguments)


def test_looking_changes_nothing(cifar: Cifar) -> None:
    before = cifar.place.all()

    for arguments in (
        ["history"],
        ["show", "current"],
        ["show", str(cifar.run("current").artifacts["weights"])],
        ["compare", "previous", "current"],
        ["compare", "previous", "current", "current"],
        ["verify"],
        ["gc", "--keep", "0", "--dry-run"],
        ["path", "report"],
    ):
        cifar(*arguments)

    assert cifar.place.all() == before
