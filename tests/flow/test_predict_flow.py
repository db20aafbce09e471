"""`python flows/predict_flow.py`, as a user starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from own_images import damaged, noise, saved
from pipeline import Pipeline, asked, run_flow

from flows.parameters import MOST_BYTES, as_parameters
from tasks.core.errors import InputError
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.store import open_store
from tasks.core.store.history import find_run


@pytest.fixture
def shell(two_runs: Path, prefect_home: Path, tmp_path: Path) -> Pipeline:
    """An environment whose store has two real runs, and that knows of no Prefect server."""
    return Pipeline(two_runs, prefect_home, cwd=tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images and every kind of damage."""
    for seed, name in enumerate(("cat.jpg", "dog.png", "more/ship.webp")):
        saved(noise(seed, (60, 40)), tmp_path / "photos" / name)
    damaged(tmp_path / "photos")
    return tmp_path / "photos"


def predict(
    shell: Pipeline, *arguments: object, exit_code: int = 0, **environment: str
) -> "subprocess.CompletedProcess[str]":
    return run_flow(shell, "predict_flow.py", *arguments, exit_code=exit_code, **environment)


def test_predictions_are_written_to_a_relative_folder(shell: Pipeline, photos: Path) -> None:
    said = predict(shell, "photos").stderr
    table = read_table(shell.cwd / "predictions" / "predictions.parquet")
    current = find_run(open_store(shell.store), "current").run

    assert list(table["path"]) == [str(photos / name) for name in ("cat.jpg", "dog.png", "more/ship.webp")]
    assert read_facts(shell.cwd / "predictions" / "predictions.parquet")["run"] == current
    assert f"3 images predicted by run {current}: " in said
    assert "7 files cannot be read:" in said
    assert "GENERATED IMAGES, NOT ON CIFAR-10" in said
    assert f"{shell.cwd / 'predictions'}" in said


def test_the_ui_shows_what_images_were_taken_for(shell: Pipeline, photos: Path, prefect_url: str) -> None:
    output = shell.cwd / "there"
    predict(shell, photos / "*.jpg", "--run", "previous", "--output", output, PREFECT_API_URL=prefect_url)
    artifacts = {artifact["key"]: artifact for artifact in asked(prefect_url, "artifacts")}

    assert read_facts(output / "predictions.parquet")["run"] == find_run(open_store(shell.store), "previous").run
    assert '"images": 1' in str(artifacts["predicted-classes"]["data"])
    assert "1 image predicted by run" in artifacts["predictions"]["data"]
    assert "truncated.jpg" in artifacts["predictions"]["data"]
    assert (artifacts["predicting"]["type"], artifacts["predicting"]["data"]) == ("progress", 100)
    assert any(flow["name"] == "predict" for flow in asked(prefect_url, "flows"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no/such/folder"], "expected a file, folder or glob"),
        (["*.gif"], "expected PNG, JPEG or WebP files, got none in"),
        ([], "IMAGES"),
        (["photos", "--run", "nope"], "run 'nope': expected the id of a run"),
        (["photos", "--store", "typo"], "typo"),
        ([""], "expected a name in UTF-8, got ''"),
        ([os.fsdecode(b"\xff.png")], r"got '\xff.png'; give its folder"),
        (["photos", "--output", os.fsdecode(b"\xff")], r"output: expected a name in UTF-8, got '\xff'"),
        (["photos", "--output", "photos/cat.jpg"], "--output: expected a folder, got the file "),
    ],
)
def test_a_wrong_value_is_one_line_before_the_heavy_imports(
    shell: Pipeline, photos: Path, arguments: list[str], expected: str
) -> None:
    assert photos.is_dir()
    done = predict(shell, *arguments, exit_code=2)
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert not (shell.cwd / "predictions").exists()


def test_images_that_are_none_are_the_users_error(shell: Pipeline, photos: Path, prefect_url: str) -> None:
    done = predict(shell, photos / "empty.png", exit_code=2, PREFECT_API_URL=prefect_url)
    assert "error: images: expected a readable image, got 1 unreadable" in done.stderr


def test_help_tells_every_option_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from flows.cli.main import main; main(['predict', '--help']); main(['predict', 'nothing']); "
        "sys.exit(bool({'torch', 'prefect', 'pandas', 'PIL'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for option in ("IMAGES", "--run", "--output", "--device", "--model", "--store"):
        assert option in done.stdout


def test_more_names_than_prefect_takes_are_refused_with_a_way_on() -> None:
    names = [f"{number:0200}.png" for number in range(MOST_BYTES // 200)]
    with pytest.raises(InputError, match="give their folder, or a glob in quotes"):
        as_parameters("images", names)
    assert as_parameters("images", names[:10]) == [str(Path.cwd() / name) for name in names[:10]]


def test_relative_paths_are_refused_as_flow_parameters() -> None:
    from flows.predict_flow import predict_flow

    for images, output in ((["photos"], "/out"), (["/photos"], "out")):
        with pytest.raises(InputError, match="expected an absolute path"):
            predict_flow.fn(images, output)


def test_flow_parameters_are_described() -> None:
    from flows.predict_flow import predict_flow

    properties = predict_flow.parameters.model_dump()["properties"]
    assert set(properties) == {"images", "output", "run", "device", "model", "store"}
    assert properties["images"]["minItems"] == 1
    assert all(len(each["description"]) > 20 for each in properties.values())
