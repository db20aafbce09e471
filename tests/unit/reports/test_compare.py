"""The comparison of real runs: its numbers, its page and its texts."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from places import FolderPlace
from run_tables import payload, predictions, scores

from tasks.core.data.dataset import load_dataset
from tasks.core.errors import InputError
from tasks.core.evaluation.intervals import mcnemar_p, paired_difference
from tasks.core.evaluation.metrics import read_scores
from tasks.core.evaluation.paired import IncomparableRuns, PairedOutcome, compare
from tasks.core.reports.charts import difference_chart, reliability_comparison
from tasks.core.reports.compare import formatting
from tasks.core.reports.compare.flips import MAX_IMAGES, find_flips
from tasks.core.reports.compare.page import write_comparison
from tasks.core.reports.compare.provenance_diff import find_differences
from tasks.core.reports.compare.runs import ComparedRun, load_runs, runs_on_same_images
from tasks.core.reports.compare.summary import Summary, comparison_verdict, summarize
from tasks.core.reports.output_files import comparison_files
from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.artifact import Key
from tasks.core.store.history import find_run


@pytest.fixture(scope="module")
def store(two_runs: Path) -> Store:
    return open_store(two_runs)


@pytest.fixture(scope="module")
def pair(store: Store) -> list[ComparedRun]:
    return load_runs(store, ["previous", "current"])


@pytest.fixture(scope="module")
def three(store: Store) -> list[ComparedRun]:
    return load_runs(store, ["previous", "current", "previous"])


def written(folder: Path, store: Store, runs: list[ComparedRun]) -> str:
    write_comparison(folder / "comparison.html", store, runs)
    return (folder / "comparison.html").read_text(encoding="utf-8")


def outcome(both: int, broken: int, fixed: int, neither: int, changed_mistakes: int = 0) -> PairedOutcome:
    images = both + broken + fixed + neither
    return PairedOutcome(
        images=images,
        first_correct=both + broken,
        second_correct=both + fixed,
        first_accuracy=(both + broken) / images,
        second_accuracy=(both + fixed) / images,
        difference=paired_difference(both, broken, fixed, neither),
        fixed=fixed,
        broken=broken,
        changed_mistakes=changed_mistakes,
        mcnemar_p=mcnemar_p(broken, fixed),
    )


# Numbers


def test_scores_are_those_of_the_evaluation_of_the_run(store: Store, pair: list[ComparedRun]) -> None:
    for run in pair:
        assert dict(run.scores) == scores(store, run.run)
        assert int(run.calibration["images"].sum()) == 100


def test_every_run_is_compared_with_the_first(store: Store, three: list[ComparedRun]) -> None:
    summary = summarize(three)

    assert [run.letter for run in summary.runs] == ["A", "B", "C"]
    assert [change.letter for change in summary.changes] == ["B", "C"]
    assert summary.changes[0].comparison == compare(predictions(store, "previous"), predictions(store))
    assert summary.changes[1].verdict == "same answers"
    for run, change in zip(summary.runs[1:], summary.changes, strict=True):
        for name, moved in change.scores.items():
            assert moved.value == pytest.approx(run.scores[name].value - summary.runs[0].scores[name].value)


def test_changes_have_intervals_unless_nothing_changed(three: list[ComparedRun]) -> None:
    other, itself = (change.scores for change in summarize(three).changes)

    for name in ("log_loss", "brier_score", "expected_calibration_error", "macro_f1"):
        assert other[name].low < other[name].value < other[name].high  # type: ignore[operator]
        assert (itself[name].value, itself[name].low, itself[name].high) == (0, None, None)


@pytest.mark.parametrize(
    ("paired", "verdict"),
    [
        (outcome(50, 5, 40, 5), "better"),
        (outcome(50, 40, 5, 5), "worse"),
        (outcome(50, 20, 21, 9), "undecided"),
        (outcome(50, 0, 0, 50, changed_mistakes=1), "undecided"),
        (outcome(50, 0, 0, 50), "same answers"),
    ],
)
def test_verdict_depends_on_the_whole_interval(paired: PairedOutcome, verdict: str) -> None:
    assert comparison_verdict(paired) == verdict  # type: ignore[arg-type]


def test_too_few_or_too_many_runs_are_refused(store: Store) -> None:
    for names in (["current"], ["current"] * 27):
        with pytest.raises(InputError, match=rf"expected 2 to 26 runs, got {len(names)}; see `cifar history`"):
            runs_on_same_images(store, names)


# Differences


def remade(run: ComparedRun, change: Callable[[Key], Key]) -> ComparedRun:
    return replace(
        run, weights_manifest=run.weights_manifest.model_copy(update={"key": change(run.weights_manifest.key)})
    )


def test_only_the_seed_differs_between_the_two_runs(pair: list[ComparedRun]) -> None:
    differences = find_differences(pair)

    assert [(setting.name, setting.values) for setting in differences.settings] == [("seed", (1, 2))]
    assert differences.code == ()
    assert not differences.same_weights


def test_a_run_has_no_differences_from_itself(pair: list[ComparedRun]) -> None:
    differences = find_differences([pair[0], pair[0]])

    assert (differences.settings, differences.code, differences.same_weights) == ((), (), True)


def test_differences_list_settings_environment_and_code(pair: list[ComparedRun]) -> None:
    def other(key: Key) -> Key:
        recipe = {**key.settings["recipe"], "learning_rate": 0.01}  # type: ignore[dict-item]
        environment = {**key.environment, "torch": "2.11.0"}
        code = {**key.code, "tasks/core/models/tutorial_net.py: Net": "0" * 64}
        settings = {**key.settings, "recipe": recipe}
        return key.model_copy(update={"settings": settings, "environment": environment, "code": code})

    differences = find_differences([pair[0], remade(pair[0], other)])

    assert [setting.name for setting in differences.settings] == ["recipe.learning_rate", "torch"]
    assert differences.settings[0].values == (0.001, 0.01)
    assert differences.settings[1].values[1] == "2.11.0"
    assert differences.code == ("tasks/core/models/tutorial_net.py: Net",)


def test_differences_include_the_environment_of_the_evaluation(pair: list[ComparedRun]) -> None:
    elsewhere = {**pair[0].predictions_manifest.key.environment, "device": "cuda"}
    key = pair[0].predictions_manifest.key.model_copy(update={"environment": elsewhere})
    other = replace(pair[0], predictions_manifest=pair[0].predictions_manifest.model_copy(update={"key": key}))

    [setting] = find_differences([pair[0], other]).settings

    assert (formatting.setting_name(setting.name), setting.values) == ("evaluate: device", ("cpu", "cuda"))


# Flipped images


def test_flips_are_sorted_by_the_confidence_of_the_second_run(store: Store, pair: list[ComparedRun]) -> None:
    one, two = pair[0].predictions, pair[1].predictions
    flips = find_flips(load_dataset(store.open(pair[0].dataset)), one, two)

    for flipped, right, wrong in ((flips.fixed, two, one), (flips.broken, one, two)):
        expected = right["index"][right["correct"].astype(bool) & ~wrong["correct"].astype(bool)]
        assert {flip.answers[0]["index"] for flip in flipped} == set(expected) != set()
        assert len(flipped) == len(expected) <= MAX_IMAGES
        confidences = [flip.answers[1]["confidence"] for flip in flipped]
        assert confidences == sorted(confidences, reverse=True)
    for flip in (*flips.fixed, *flips.broken):
        for answer, table in zip(flip.answers, (one, two), strict=True):
            row = table.iloc[answer["index"]]
            assert (answer["label"], answer["predicted"]) == (row["label"], row["predicted"])
            assert answer["correct"] == (answer["label"] == answer["predicted"])


def test_flips_are_limited_and_have_unique_positions(store: Store, pair: list[ComparedRun]) -> None:
    many = np.resize(np.arange(100), 7_000)
    one, two = (run.predictions.iloc[many].reset_index(drop=True) for run in pair)
    flips = find_flips(load_dataset(store.open(pair[0].dataset)), one, two)
    total = len(flips.fixed) + len(flips.broken)

    assert len(flips.fixed) == len(flips.broken) == MAX_IMAGES
    assert sorted(flip.position for flip in (*flips.fixed, *flips.broken)) == list(range(total))
    assert flips.sheet.rows * flips.sheet.columns >= total


# The page


def test_page_has_verdict_numbers_and_a_label_of_generated_images(
    tmp_path: Path, store: Store, pair: list[ComparedRun]
) -> None:
    page = written(tmp_path, store, pair)
    summary = summarize(pair)
    comparison = summary.changes[0].comparison

    text = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    assert f"{formatting.verdicts(summary)} " in text
    assert formatting.evidence(comparison) in text
    assert "GENERATED IMAGES, NOT CIFAR-10" in text
    assert f"Fixed: {comparison.fixed} image" in text
    assert f"Broken: {comparison.broken} image" in text
    assert "Setting A B seed 1 2 All other settings" in text
    for each in comparison.per_class:
        assert f"{each.class_name} {100 * each.first_accuracy:.1f}% {100 * each.second_accuracy:.1f}%" in text
    for run in summary.runs:
        assert run.run in text


def test_page_of_several_runs_has_a_table_and_no_images(tmp_path: Path, store: Store, three: list[ComparedRun]) -> None:
    page = written(tmp_path, store, three)

    assert "3 runs compared" in page
    assert "Each run against A" in page
    assert "C and A give the same answer for every image" in page
    assert page.count('<th scope="row">star</th>') == 1
    assert 'class="picture"' not in page
    assert "data:image" not in page


def test_page_of_a_run_and_itself_shows_no_differences(tmp_path: Path, store: Store, pair: list[ComparedRun]) -> None:
    page = written(tmp_path, store, load_runs(store, ["current", pair[1].run]))

    assert "B and A give the same answer for every image" in page
    assert "devices are the same, and so are the weights" in page
    assert "No images: B is wrong on every image that A gets wrong." in page
    assert "The interval of every class includes 0." in page


def test_page_runs_no_script_and_loads_no_other_files(tmp_path: Path, store: Store, pair: list[ComparedRun]) -> None:
    page = written(tmp_path, store, pair)

    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'\">" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_page_ids_are_unique_and_references_to_them_exist(
    tmp_path: Path, store: Store, pair: list[ComparedRun], three: list[ComparedRun]
) -> None:
    for runs in (pair, three):
        page = written(tmp_path, store, runs)
        ids = re.findall(r' id="([^"]+)"', page)
        referred = re.findall(r'(?:href="#|aria-labelledby="|url\(#)([^")]+)', page)
        assert len(ids) == len(set(ids))
        assert set(referred) <= set(ids)


def test_charts_are_xml_with_a_label(pair: list[ComparedRun]) -> None:
    summary = summarize(pair)
    for drawing in (
        difference_chart(summary.changes[0].comparison),
        reliability_comparison({run.letter: run.calibration for run in pair}),
    ):
        svg = ElementTree.fromstring(drawing)
        assert svg.get("role") == "img"
        assert svg.get("aria-label") == svg.findtext("{http://www.w3.org/2000/svg}title")
        assert "currentColor" in drawing


def test_difference_chart_has_values_overall_and_by_class(pair: list[ComparedRun]) -> None:
    comparison = summarize(pair).changes[0].comparison
    svg = ElementTree.fromstring(difference_chart(comparison))
    texts = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]

    for name, each in (("all", comparison), *((each.class_name, each) for each in comparison.per_class)):
        shown = f"{100 * each.difference.value:+.1f}".replace("-", "−") if each.difference.value else "0"
        assert texts[texts.index(name) + 1] == shown


def test_class_names_are_not_interpreted_as_markup(tmp_path: Path, store: Store, pair: list[ComparedRun]) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    named = []
    for run in pair:
        columns = {
            name: run.predictions[name].cat.rename_categories({"star": hostile}) for name in ("label", "predicted")
        }
        named.append(replace(run, predictions=run.predictions.assign(**columns)))

    page = written(tmp_path, store, named)

    assert hostile not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_the_same_runs_give_the_same_bytes(tmp_path: Path, store: Store, pair: list[ComparedRun]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    written(one, store, pair)
    written(two, store, load_runs(store, ["previous", "current"]))

    for name in ("comparison.html", "comparison.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert sorted(path.name for path in one.iterdir()) == ["comparison.html", "comparison.json"]


def test_the_json_file_has_the_numbers_of_the_page(tmp_path: Path, store: Store, three: list[ComparedRun]) -> None:
    written(tmp_path, store, three)
    text = (tmp_path / "comparison.json").read_text(encoding="utf-8")

    numbers = json.loads(text, parse_constant=pytest.fail)
    assert Summary.model_validate_json(text) == summarize(three)
    assert numbers["generated_images"] is True
    assert (
        numbers["runs"][1]["scores"]
        == json.loads(read_scores(payload(store, "per_class", "current")).model_dump_json())["scores"]
    )


@pytest.mark.parametrize("name", ["page.json", "page", "page.htm"])
def test_page_without_html_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"--html: expected a file name that ends in \.html, got "):
        comparison_files(tmp_path / name)


@pytest.mark.parametrize("name", ["page.html", "page.json"])
def test_a_folder_at_the_path_of_page_or_json_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="--html: expected a file, got the folder"):
        comparison_files(tmp_path / "page.html")


def test_a_file_at_the_path_of_the_folder_is_an_input_error(
    tmp_path: Path, store: Store, pair: list[ComparedRun]
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="--html: expected a folder, got the file "):
        write_comparison(tmp_path / "file" / "page.html", store, pair)


def test_damage_leaves_the_existing_page_unchanged(tmp_path: Path, artifacts: Path) -> None:
    store = open_store(artifacts)
    before = written(tmp_path, store, load_runs(store, ["previous", "current"]))
    ref = find_run(store, "current").artifacts["weights"]
    FolderPlace(artifacts).delete(f"{ref}/manifest.json")

    with pytest.raises(DamagedArtifact, match=f"{ref}: its manifest is missing or damaged; run again"):
        written(tmp_path, store, load_runs(store, ["previous", "current"]))
    assert (tmp_path / "comparison.html").read_text(encoding="utf-8") == before


# Texts


def test_markdown_has_a_table_and_a_label_of_generated_images(three: list[ComparedRun]) -> None:
    text = formatting.markdown(summarize(three))

    assert text.startswith(f"**{formatting.GENERATED_IMAGES}**")
    assert text.count("\n| ") == 5  # head, rule, and a row each
    for run in three:
        assert f"| {run.letter}: `{run.run}` |" in text
    assert "Differences: seed." in text


def test_log_lines_compare_each_run_with_the_first(three: list[ComparedRun]) -> None:
    lines = list(formatting.log_lines(summarize(three)))

    assert [line[:20] for line in lines[:3]] == [f"compare: {letter} is run 20" for letter in "ABC"]
    assert lines[4].startswith("compare: C against A: +0.00 points of accuracy (95% interval −")
    assert "C and A give the same answer for every image" in lines[5]
    assert lines[6] == f"compare: {formatting.GENERATED_IMAGES}"


def test_negative_zero_has_no_minus_sign() -> None:
    assert (formatting.signed(-0.001), formatting.signed(-0.5), formatting.signed(0.5, 1)) == ("+0.00", "−0.50", "+0.5")


def test_runs_on_other_images_are_refused(tmp_path: Path) -> None:
    from tiny_artifacts import finished_run, identity_of

    one, two = (finished_run(tmp_path, "one", identity_of("archive", name)).record.run for name in ("mine", "yours"))
    with pytest.raises(IncomparableRuns, match="expected runs on the same images, got archive images"):
        load_runs(open_store(tmp_path), [one, one, two])
