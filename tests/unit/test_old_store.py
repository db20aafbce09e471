"""A store that version 0.1.0 wrote, before modules moved, is read, verified, predicted from, compared and exported."""

import tarfile
from pathlib import Path

import pytest
from tiny import tiny_archive

import tasks
from tasks.core.config import PROJECT, Settings
from tasks.core.explain import explain
from tasks.core.inference.export import export
from tasks.core.models.tutorial_net import Net
from tasks.core.store import open_store
from tasks.core.store.history import find_run
from tasks.core.store.verify import verify

RUNS = ["20261128-101619-1ec9cd", "20261128-101606-7ad209"]


@pytest.fixture
def old_store(tmp_path: Path) -> Path:
    with tarfile.open(PROJECT / "tests" / "fixtures" / "store-0.1.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "artifacts"


def test_every_byte_of_an_old_store_is_verified(old_store: Path) -> None:
    pieces = dict(verify(open_store(old_store)))
    assert len(pieces) > 10
    assert not any(pieces.values())


def test_an_old_stores_runs_and_tables_are_read(old_store: Path) -> None:
    store = tasks.open_store(old_store)
    assert store.runs()["run"].tolist() == RUNS
    assert store.runs()["standing"].tolist() == ["current", "promoted"]
    run = store.run("previous")
    assert run.per_class["support"].sum() == len(run.predictions) == 20
    assert run.training["epoch"].max() == 2


def test_an_old_runs_verdict_is_read_as_typed(old_store: Path) -> None:
    assert find_run(open_store(old_store), "current").was_promoted


def test_an_old_runs_network_is_loaded_by_its_new_name(old_store: Path) -> None:
    run = tasks.open_store(old_store).run()
    network = run.model()
    assert type(network) is Net
    assert set(run.weights) == set(network.state_dict())


def test_two_old_runs_are_compared(old_store: Path) -> None:
    assert tasks.open_store(old_store).compare("previous", "current").images == 20


def test_an_old_run_is_exported_and_answers_as_it_did(old_store: Path, tmp_path: Path) -> None:
    check = export(open_store(old_store), "current", "safetensors", tmp_path / "net.safetensors")
    assert check.largest_difference <= check.tolerance


def test_a_run_on_an_old_store_rebuilds_what_depends_on_code(old_store: Path, tmp_path: Path) -> None:
    archive = tiny_archive(tmp_path / "tiny.tar.gz", train=40, test=20)
    lines = list(explain(open_store(old_store), Settings(source=str(archive), epochs=2)))
    assert lines[0].startswith("download: ")
    assert lines[1].startswith("normalize: rebuilding, ")
