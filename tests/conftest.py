"""What several test files share: a tiny archive, a Prefect server, and the pipeline as a user starts it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command import Cifar
from log_lines import logged_lines
from object_store import UNSET, ObjectStore, serving_objects
from pipeline import Pipeline
from places import BucketPlace, FolderPlace, Place
from tiny import tiny_archive
from tiny_artifacts import finished_run
from waiting import answers, wait_for

from tasks.core.config import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PREFECT = {"prefect_home", "prefect_url"}

# What a shell runs in its background ignores Ctrl-C, and so would the processes that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# There are more processes than cores, so each computes in one thread, and idle threads do not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in which whole pipelines run come first, so that no worker is left with one when the others are done."""
    long = {item.path for item in items if isinstance(item, pytest.Function) and PREFECT & set(item.fixturenames)}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated images in the official layout: 400 to train on and 100 to test on."""
    return tiny_archive(tmp_path_factory.mktemp("archive") / "tiny.tar.gz", train=400, test=100)


@pytest.fixture(scope="session")
def two_runs(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two real runs, of seed 1 and of seed 2, which is the current one; it is not to be changed."""
    from tiny_runs import tiny_run  # torch, which most tests do without

    store = tmp_path_factory.mktemp("two_runs") / "artifacts"
    for seed in (1, 2):
        tiny_run(store, Settings(source=str(archive), epochs=1, seed=seed))
    return store


@pytest.fixture
def artifacts(two_runs: Path, tmp_path: Path) -> Path:
    """A copy of that store, to be changed at will."""
    return shutil.copytree(two_runs, tmp_path / "artifacts")


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Prefect home that is not the user's; its database is migrated once for all tests."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The API of a real, lasting Prefect server."""
    home = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(lambda: answers(f"{url}/health"), "the Prefect server")
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server, and in the environment what a user sets to work on it: s3fs reads it once in a process."""
    with serving_objects(tmp_path_factory.mktemp("objects")) as server, pytest.MonkeyPatch.context() as environment:
        for name in UNSET:
            environment.delenv(name, raising=False)
        for name, value in server.environment.items():
            environment.setenv(name, value)
        yield server


@pytest.fixture
def log() -> Iterator[list[str]]:
    """The lines that the library logs."""
    with logged_lines() as lines:
        yield lines


@pytest.fixture
def folder(tmp_path: Path) -> FolderPlace:
    return FolderPlace(tmp_path / "store")


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BucketPlace:
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "cache"))
    return BucketPlace(object_store, prefix=tmp_path.name)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest) -> Place:
    """An empty place for a store: what is said of it holds in both."""
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def cifar(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> Cifar:
    """The command on a store of two real runs."""
    return Cifar(artifacts, capsys)


@pytest.fixture
def cifar_on_tiny(folder: FolderPlace, capsys: pytest.CaptureFixture[str]) -> Cifar:
    """The command on a store of a promoted run and two refused ones, of a few bytes each."""
    for word, policy in (("one", "auto"), ("two", "never"), ("three", "never")):
        finished_run(folder.root, word, policy=policy)  # type: ignore[arg-type]
    return Cifar(folder.root, capsys)


@pytest.fixture
def pipeline(tmp_path: Path, prefect_home: Path) -> Pipeline:
    """The pipeline on an empty store, where no server is configured."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return Pipeline(store=tmp_path / "store", home=prefect_home, cwd=elsewhere)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real browser, where there is one; not for longer than a module, as its event loop runs in this thread."""
    from playwright.sync_api import sync_playwright  # which most tests do without

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-quic"])
        yield browser
        browser.close()
