"""The commands that read a store, on a store of two real runs."""

import json
from pathlib import Path

import pytest
from command import Cifar
from places import flip_a_bit, make_unreadable

from flows.cli.main import main
from tasks.core.evaluation.paired import Comparison
from tasks.core.reports.compare.summary import Summary
from tasks.core.store.gc import collect_garbage
from tasks.core.store.history import HistoryRow
from tasks.core.store.lineage import Lineage
from tasks.core.store.runs import RunRecord, recording_run

# history


def test_history_has_a_line_for_each_run_newest_first(cifar: Cifar) -> None:
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


def test_history_can_be_limited(cifar: Cifar) -> None:
    assert len(cifar("history", "--limit", "1").splitlines()) == 2
    assert [row["run"] for row in cifar.json("history", "--limit", "1")] == [cifar.run("current").run]
    assert cifar.json("history", "--limit", "0") == []
    assert "limit" in cifar.refused("history", "--limit", "-1")


def test_history_marks_runs_that_failed_or_were_collected(cifar_on_tiny: Cifar) -> None:
    with pytest.raises(ZeroDivisionError), recording_run(cifar_on_tiny.store, {}, {}):
        raise ZeroDivisionError
    collect_garbage(cifar_on_tiny.store, 2, dry_run=False)

    lines = cifar_on_tiny("history").splitlines()[1:]

    for line, standing in zip(lines, ("failed", "refused", "refused, collected", "current"), strict=True):
        assert f"  {standing}  " in line


def test_history_as_json_has_every_documented_field(cifar: Cifar) -> None:
    rows = cifar.json("history")

    assert [set(row) for row in rows] == [set(HistoryRow.model_fields)] * 2
    assert [row["standing"] for row in rows] == ["current", "promoted"]


# show


def test_show_prints_the_record_of_a_run(cifar: Cifar) -> None:
    record = cifar.run("current")
    assert record.score
    assert record.verdict

    printed = cifar("show", "current")

    lines = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert (lines["run"], lines["status"], lines["who"]) == (record.run, "completed", record.who)
    assert lines["accuracy"].startswith(f"{record.score.correct}.00% ({record.score.correct} of 100 correct), 95%")
    assert lines["verdict"] == record.verdict
    assert lines["weights"] == str(record.artifacts["weights"])
    assert "epochs 1" in lines["settings"]
    assert cifar("show", record.run) == cifar("show", record.run[:-1]) == printed
    assert RunRecord.model_validate(cifar.json("show", record.run)) == record


def test_show_prints_the_manifest_and_lineage_of_a_version(cifar: Cifar) -> None:
    record = cifar.run("current")
    refs = record.artifacts

    printed = cifar("show", str(refs["weights"]))

    facts, _, lineage = printed.partition("built from\n")
    built_from, _, used_for = lineage.partition("used for\n")
    lines = dict(line.split(maxsplit=1) for line in facts.splitlines())
    assert (lines["version"], lines["sha256"]) == (str(refs["weights"]), refs["weights"].sha256)
    assert json.loads(lines["settings"])["seed"] == 2
    assert "cifar_net.pth (" in lines["files"]
    assert printed.count(record.run) == 2  # by run, in runs
    assert [line.split(",")[0] for line in built_from.splitlines()] == [f"  {refs['dataset']}", f"    {refs['raw']}"]
    assert used_for.split() == [str(refs["predictions"]), str(refs["report"])]
    assert cifar("show", f"weights/{refs['weights'].version[:6]}") == printed

    lineage_in_json = Lineage.model_validate(cifar.json("show", str(refs["weights"])))
    assert lineage_in_json.manifest.ref == refs["weights"]


def test_show_of_versions_without_ancestors_or_descendants(cifar: Cifar) -> None:
    refs = cifar.run("current").artifacts

    assert "built from no artifact\n" in cifar("show", str(refs["raw"]))
    assert "used for no artifact\n" in cifar("show", str(refs["report"]))


def test_long_values_are_on_one_line_without_a_terminal(cifar_on_tiny: Cifar) -> None:
    words = "expected one thing, got another " * 100
    with pytest.raises(RuntimeError), recording_run(cifar_on_tiny.store, {}, {}) as run:
        raise RuntimeError(words)

    assert f"failed: RuntimeError: {words.strip()}\n" in cifar_on_tiny("show", run.record.run)


# compare


def test_compare_prints_changes_overall_and_by_class(cifar: Cifar) -> None:
    comparison = Comparison.model_validate(cifar.json("compare", "previous", "current"))
    assert (comparison.images, len(comparison.per_class)) == (100, 10)

    lines = cifar("compare", "previous", "current").splitlines()

    assert lines[0].split()[-3:] == ["fixed", "broken", "images"]
    first, second = comparison.first_correct, comparison.second_correct
    fixed, broken = comparison.fixed, comparison.broken
    overall = lines[1].split()
    assert overall[:4] == ["all", f"{first}.00%", f"{second}.00%", f"{second - first:+}.00"]
    assert overall[-4:] == [f"{comparison.mcnemar_p:.2g}", str(fixed), str(broken), "100"]
    assert [line.split()[0] for line in lines[2:12]] == [row.class_name for row in comparison.per_class]
    rest = "\n".join(lines[12:])
    for part in (cifar.run("previous").run, cifar.run("current").run, f"fixed: {fixed} image", f"broken: {broken} "):
        assert part in rest


def test_compare_of_several_runs_prints_changes_and_settings(cifar: Cifar) -> None:
    names = ("previous", "current", "previous")
    summary = Summary.model_validate(cifar.json("compare", *names))
    other, itself = (change.comparison for change in summary.changes)

    head, first, *others = cifar("compare", *names).splitlines()

    assert head.split()[-7:] == ["interval", "p", "fixed", "broken", "log", "loss", "ECE"]
    assert first.split()[:3] == ["A", cifar.run("previous").run, f"{other.first_correct}.00%"]
    for line, letter, comparison in zip(others, "BC", (other, itself), strict=False):
        assert line.split()[0] == letter
        assert f"{100 * comparison.difference.value:+.2f}" in line
    rest = "\n".join(others[2:])
    assert "differences  A  B  C\nseed         1  2  1\n" in rest
    assert "C and A give the same answer for every image" in rest
    assert "GENERATED IMAGES, NOT CIFAR-10" in rest


# path


def test_path_prints_an_existing_path(cifar: Cifar) -> None:
    for run in ("current", "previous"):
        [line] = cifar("path", "per_class", "--run", run).splitlines()
        assert Path(line) == cifar.root / str(cifar.run(run).artifacts["per_class"]) / "per_class.parquet"
        assert Path(line).is_file()
    assert Path(cifar("path", "weights").rstrip("\n")).is_dir()


def test_path_refuses_damaged_files(cifar: Cifar) -> None:
    ref = cifar.run("current").artifacts["per_class"]
    flip_a_bit(cifar.place, f"{ref}/per_class.parquet")

    assert cifar.refused("path", "per_class", exit_code=1) == (
        f"{ref}: per_class.parquet is damaged: its bytes are not those that were stored; run again to rebuild it"
    )


# All commands


@pytest.mark.parametrize(
    "arguments",
    [
        ("history",),
        ("show", "current"),
        ("compare", "previous", "current"),
        ("compare", "previous", "current", "previous"),
        ("compare", "previous", "current", "--html", "comparison.html"),
        ("promote", "previous"),
        ("rollback", "--why", "a typo"),
        ("verify",),
        ("gc", "--keep", "1"),
        ("path", "per_class"),
        ("export", "current", "--format", "onnx"),
    ],
)
def test_a_missing_store_is_refused_and_not_created(
    arguments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mistyped = tmp_path / "artefacts"

    assert Cifar(mistyped, capsys).refused(*arguments) == (
        f"store {mistyped}: there is none yet; give another one by --store, or create it by `cifar run`"
    )
    assert not mistyped.exists()


def test_explain_without_a_store_assumes_an_empty_one(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "artifacts"

    assert main(["run", "--explain", "--source", str(archive), "--store", str(nowhere)]) == 0

    printed = capsys.readouterr()
    assert printed.out.splitlines()[:2] == [
        "download: building for the first time",
        "normalize: building for the first time",
    ]
    assert printed.err == f"store {nowhere}: there is none yet; the run would create it\n"
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
def test_unreadable_files_are_one_line_without_a_traceback(cifar: Cifar, arguments: tuple[str, ...]) -> None:
    make_unreadable(cifar.place, f"runs/{cifar.run('previous').run}.json")

    exit_code = main([*arguments, "--store", str(cifar.root)])

    printed, error = cifar.capsys.readouterr()
    [line] = error.splitlines() or printed.splitlines()[:1]
    assert exit_code == 1
    assert "cannot be read: Input/output error; check the disk" in line


def test_the_default_store_is_that_of_the_environment(
    artifacts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIFAR_FLOW_STORE", str(artifacts))

    assert main(["path", "per_class"]) == 0
    assert capsys.readouterr().out.startswith(str(artifacts))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nope"], "run 'nope': expected the id of a run in "),
        (["show", "weights/zz"], "weights/zz: expected NAME/VERSION of one version in the store, got 0 that match"),
        (["path", "nope"], "expected one of its artifacts (data_checks, dataset, per_class, predictions, raw, report"),
        (["compare", "current"], 'Command "compare" parameter SECOND requires an argument; see --help'),
        (["history", "--jsn"], "Unknown option: --jsn. Did you mean --json?"),
        (["export", "current", "--format", "tflite"], "onnx"),
        (["histroy"], 'Unknown command "histroy"'),
        (["histroy"], "...; see --help"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(cifar: Cifar, arguments: list[str], words: str) -> None:
    assert words in cifar.refused(*arguments)


def test_reading_commands_change_nothing(cifar: Cifar) -> None:
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
