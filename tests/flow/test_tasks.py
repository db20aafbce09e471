"""The tasks, as Prefect runs and shows them."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from loopback import Mirror, serving
from pipeline import Pipeline


@pytest.fixture
def watched(pipeline: Pipeline, prefect_url: str) -> Pipeline:
    """The pipeline on a server that can be asked afterwards."""
    return Pipeline(pipeline.store, pipeline.home, pipeline.cwd, environment={"PREFECT_API_URL": prefect_url})


def asked(url: str, what: str, flow_run: str) -> list[dict[str, Any]]:
    body = {"flow_runs": {"id": {"any_": [flow_run]}}}
    answer = httpx.post(f"{url}/{what}/filter", json=body, trust_env=False).raise_for_status()
    found: list[dict[str, Any]] = answer.json()
    return found


def test_a_broken_download_is_retried_and_resumed(watched: Pipeline, archive: Path) -> None:
    payload = archive.read_bytes()
    broken_at = len(payload) * 6 // 10
    with serving(Mirror(payload, etag='"one"', breaks_after=broken_at)) as mirror:
        printed = watched.run("--source", mirror.url)
        assert mirror.ranges() == [None, f"bytes={broken_at}-"]
    assert "Retry 1/3" in printed
    assert "Traceback" not in printed
    [stored] = (watched.store / "raw").glob("*/archive.tar.gz")
    assert stored.read_bytes() == payload


def test_the_ui_shows_names_dependencies_reuse_and_tables(watched: Pipeline, archive: Path, prefect_url: str) -> None:
    watched.run("--source", archive)
    watched.run("--source", archive)
    flow_run = watched.records()[-1]["facts"]["flow_run"]

    shown = {task["name"]: task for task in asked(prefect_url, "task_runs", flow_run)}
    assert set(shown) == {"download", "normalize and cache", "train tutorial with seed 1", "evaluate", "report"}
    assert {task["state_name"] for task in shown.values()} == {"Cached"}
    [dataset] = shown["train tutorial with seed 1"]["task_inputs"]["wait_for"]
    assert dataset["id"] == shown["normalize and cache"]["id"]

    first = watched.records()[0]["facts"]["flow_run"]
    [training] = [each for each in asked(prefect_url, "artifacts", first) if each["key"] == "training"]
    assert (training["type"], training["data"]) == ("progress", 100)
    artifacts = {artifact["key"]: artifact for artifact in asked(prefect_url, "artifacts", flow_run)}
    assert artifacts["per-class"]["type"] == "table"
    assert "95% interval" in artifacts["report"]["data"]
