"""`python flows/compare_flow.py`, as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import Pipeline, asked, run_flow
from places import FolderPlace, flip_a_bit

from tasks.core.errors import InputError
from tasks.core.store import open_store
from tasks.core.store.history import find_run


@pytest.fixture
def shell(two_runs: Path, prefect_home: Path, tmp_path: Path) -> Pipeline:
    """An environment whose store has two real runs, and that knows of no Prefect server."""
    return Pipeline(two_runs, prefect_home, cwd=tmp_path)


def compare(shell: Pipeline, *arguments: object, exit_code: int = 0, **environment: str) -> str:
    """What it says on stderr, where Prefect's log goes."""
    return run_flow(shell, "compare_flow.py", *arguments, exit_code=exit_code, **environment).stderr


def test_two_runs_are_compared_on_a_server_of_its_own(shell: Pipeline) -> None:
    said = compare(shell, "previous", "current", "--html", "comparison.html")
    runs = [find_run(open_store(shell.store), name).run for name in ("previous", "current")]

    numbers = json.loads((shell.cwd / "comparison.json").read_text(encoding="utf-8"))
    assert [run["run"] for run in numbers["runs"]] == runs
    assert "Comparison of runs" in (shell.cwd / "comparison.html").read_text(encoding="utf-8")
    assert f"compare: wrote {shell.cwd / 'comparison.html'}" in said
    assert "B against A: " in said
    assert "GENERATED IMAGES, NOT CIFAR-10" in said


def test_the_ui_shows_how_several_runs_compare(shell: Pipeline, prefect_url: str) -> None:
    page = shell.cwd / "there" / "three.html"
    compare(shell, "previous", "current", "previous", "--html", page, PREFECT_API_URL=prefect_url)
    artifacts = {artifact["key"]: artifact for artifact in asked(prefect_url, "artifacts")}

    assert "3 runs compared" in page.read_text(encoding="utf-8")
    assert page.with_suffix(".json").is_file()
    assert "C and A give the same answer for every image" in artifacts["comparison"]["data"]
    assert any(flow["name"] == "compare" for flow in asked(prefect_url, "flows"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["current"], "SECOND"),
        (["current", "nope"], "run 'nope': expected the id of a run"),
        (["current"] * 27, "compare: expected 2 to 26 runs, got 27"),
        (["current", "previous", "--store", "typo"], "typo"),
        (["current", "previous", "--html", "page.pdf"], "--html: expected a file name that ends in .html, got"),
    ],
)
def test_a_wrong_value_is_one_line_and_exit_code_2(shell: Pipeline, arguments: list[str], expected: str) -> None:
    [line] = compare(shell, *arguments, exit_code=2).splitlines()

    assert line.startswith("error: ")
    assert expected in line
    assert list(shell.cwd.iterdir()) == []


def test_damage_is_one_line_exit_code_1_and_no_page(shell: Pipeline, artifacts: Path, prefect_url: str) -> None:
    ref = find_run(open_store(artifacts), "current").artifacts["predictions"]
    flip_a_bit(FolderPlace(artifacts), f"{ref}/predictions.parquet")

    said = compare(
        shell,
        "previous",
        "current",
        "--html",
        "comparison.html",
        "--store",
        artifacts,
        exit_code=1,
        PREFECT_API_URL=prefect_url,
    ).splitlines()

    assert said[-1].startswith(f"error: {ref}: predictions.parquet is damaged: ")
    assert list(shell.cwd.glob("comparison.*")) == []


def test_help_and_wrong_values_come_before_the_heavy_imports(shell: Pipeline) -> None:
    script = (
        "import sys; from flows.cli.main import main; main(['compare', '--help']); "
        "main(['compare', 'current', 'nope', '--html', 'x.html']); "
        "main(['compare', 'current', 'current', '--html', 'x']); "
        "sys.exit(bool({'torch', 'prefect', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=shell.environ(), capture_output=True, text=True, check=True
    )
    for option in ("FIRST", "SECOND", "OTHERS", "--html", "--store"):
        assert option in done.stdout


def test_a_relative_page_is_refused_as_a_flow_parameter() -> None:
    from flows.compare_flow import compare_flow

    with pytest.raises(InputError, match="output: expected an absolute path"):
        compare_flow.fn(["current", "previous"], "comparison.html")


def test_flow_parameters_are_described() -> None:
    from flows.compare_flow import compare_flow

    properties = compare_flow.parameters.model_dump()["properties"]
    assert set(properties) == {"runs", "output", "store"}
    assert (properties["runs"]["minItems"], properties["runs"]["maxItems"]) == (2, 26)
    assert all(described.get("description") for described in properties.values())
