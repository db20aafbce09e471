"""Many processes on one store at once: each version is built once, every run ends well, and nobody waits for ever.

With CIFAR_FLOW_SOAK=1 there are 8 whole pipelines at once, and they are also run with a temporary Prefect server each.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from filelock import FileLock
from killing import Process, kill, next_line, python_process, resume
from pipeline import TIMEOUT_S, Pipeline, built
from places import SOAK
from tiny_artifacts import finished_run, identity_of, run_payloads

from tasks.core.promotion_gate import promotion_gate
from tasks.core.store import Store, open_store
from tasks.core.store.artifact import Build, Key
from tasks.core.store.current import read_current
from tasks.core.store.history import history
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import ROOT_FILES
from tasks.core.store.verify import verify

AT_ONCE = 8 if SOAK else 4  # whole pipelines
A_MOMENT_S = 0.05
WORK = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    "import test_concurrency as t; t.work(*sys.argv[1:])"
)


def say(words: str) -> None:
    print(words, flush=True)


def work(root: str, word: str, diary: str, stuck_in: str = "") -> None:
    """A run in a process of its own, once it is told to go on; each build takes a moment, and one may take for ever."""

    def make(name: str, payload: dict[str, bytes]) -> None:
        def build(folder: Path) -> None:
            with Path(diary).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {name}/{key.version}\n")
            time.sleep(A_MOMENT_S)
            for file_name, content in payload.items():
                (folder / file_name).write_bytes(content)
            if name == stuck_in:
                say(f"stuck in {name}")
                time.sleep(TIMEOUT_S)

        key = Key(name=name, settings={"word": word if name != "dataset" else "everyone's"})
        run.add_artifacts(run.store.get_or_create(Build(key, build)).ref)

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    say("ready")
    sys.stdin.readline()
    payloads = run_payloads(word, identity_of())
    with recording_run(open_store(root), {"word": word}, {}) as run:
        for name in ("dataset", "weights", "predictions", "per_class"):
            make(name, payloads[name])
        with promotion_gate(run, "auto", 1.0):
            make("report", payloads["report"])


@contextmanager
def ready(root: Path, diary: Path, *words: str, stuck_in: str = "") -> Iterator[list[Process]]:
    """Processes that have imported all they need and wait for a word; they do not outlive the block."""
    with ExitStack() as stack:
        processes = [stack.enter_context(python_process(WORK, root, word, diary, stuck_in)) for word in words]
        for process in processes:
            assert next_line(process) == "ready"
        yield processes


def let_go(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write("go on\n")
    process.stdin.flush()


def wait_for_line(process: Process, beginning: str) -> None:
    while not next_line(process).startswith(beginning):
        pass


def check_is_sound(root: Path) -> None:
    """Whatever there is wrong with a store: something damaged, root files of several runs, a lock that is held."""
    store = open_store(root)
    assert [finding for _, piece in verify(store) for finding in piece] == []
    current = read_current(store)
    assert current is not None
    for name, artifact in ROOT_FILES.items():
        assert (root / name).read_bytes() == (store.open(current.artifacts[artifact]) / name).read_bytes()
    for lock in root.glob(".work/locks/*.lock"):
        with FileLock(lock).acquire(timeout=0):
            pass
    assert list(root.glob(".work/staging/*")) == []


def statuses(store: Store) -> Counter[str]:
    return Counter(row.status for row in history(store))


def test_runs_at_once_make_each_version_once(tmp_path: Path) -> None:
    root, diary = tmp_path / "store", tmp_path / "diary"

    with ready(root, diary, "same", "same", "same", "same", "a", "b", "c", "d") as processes:
        for process in processes:
            let_go(process)
        for process in processes:
            resume(process)

    built = [line.split()[1] for line in diary.read_text(encoding="utf-8").splitlines()]
    assert len(built) == len(set(built)) == 1 + 5 * 4
    assert statuses(open_store(root)) == {"completed": 8}
    check_is_sound(root)


def test_runs_go_on_when_those_that_they_wait_for_are_killed(tmp_path: Path) -> None:
    root, diary = tmp_path / "store", tmp_path / "diary"

    with (
        ready(root, diary, "same", stuck_in="weights") as [builder],
        ready(root, diary, "same", "same", "same") as waiting_for_weights,
        ready(root, diary, "other", stuck_in="report") as [judge],
        ready(root, diary, "other", "other", "third") as waiting_for_verdict,
    ):
        for victim, stuck_in, others, lock in (
            (builder, "weights", waiting_for_weights, "weights"),
            (judge, "report", waiting_for_verdict, "promotion"),
        ):
            let_go(victim)
            wait_for_line(victim, f"stuck in {stuck_in}")
            for process in others:
                let_go(process)
                wait_for_line(process, f"store: waiting for another run to release {lock}")
        for victim in (builder, judge):
            kill(victim)
        for process in waiting_for_weights + waiting_for_verdict:
            resume(process)

    lines = [line.split() for line in diary.read_text(encoding="utf-8").splitlines()]
    unfinished = {str(builder.pid): "weights", str(judge.pid): "report"}
    built = [version for pid, version in lines if not version.startswith(unfinished.get(pid, "no"))]
    assert len(built) == len(set(built)) == 1 + 3 * 4
    finished_run(root, "last")
    assert statuses(open_store(root)) == {"completed": 7, "killed": 2}
    check_is_sound(root)


@pytest.fixture
def on_one_server(pipeline: Pipeline, prefect_url: str) -> Pipeline:
    return Pipeline(pipeline.store, pipeline.home, pipeline.cwd, environment={"PREFECT_API_URL": prefect_url})


def run_at_once(pipeline: Pipeline, archive: Path, seeds: list[int]) -> dict[str, int]:
    """The artifacts that pipelines which start at once build altogether; all must succeed."""
    started_at_once = [pipeline.start("--source", archive, "--epochs", 1, "--seed", seed) for seed in seeds]
    try:
        printed = [process.communicate(timeout=TIMEOUT_S)[0] for process in started_at_once]
    finally:
        for process in started_at_once:
            process.kill()
    bad = [words for process, words in zip(started_at_once, printed, strict=True) if process.returncode]
    assert not bad, "\n\n".join(bad)
    return Counter(name for words in printed for name in built(words))


def cifar(pipeline: Pipeline, *arguments: str) -> str:
    """What the `cifar` command prints, which must end well."""
    command = [
        sys.executable,
        "-c",
        "import sys, flows.cli.main; sys.exit(flows.cli.main.main(sys.argv[1:]))",
        *arguments,
    ]
    return subprocess.run(
        command, cwd=pipeline.cwd, env=pipeline.environ(), capture_output=True, text=True, check=True
    ).stdout


def test_pipelines_at_once_train_each_setting_once(on_one_server: Pipeline, archive: Path) -> None:
    same, different = AT_ONCE // 2, list(range(2, 2 + AT_ONCE // 2))

    counted = run_at_once(on_one_server, archive, [1] * same + different)

    distinct = 1 + len(different)
    assert {name: counted[name] for name in ("raw", "dataset", "weights", "predictions", "per_class")} == {
        "raw": 1,
        "dataset": 1,
        "weights": distinct,
        "predictions": distinct,
        "per_class": distinct,
    }
    assert [record["status"] for record in on_one_server.records()] == ["completed"] * AT_ONCE
    assert len(json.loads(cifar(on_one_server, "history", "--json"))) == AT_ONCE
    cifar(on_one_server, "verify")
    check_is_sound(on_one_server.store)


@pytest.mark.skipif(not SOAK, reason="takes minutes; CIFAR_FLOW_SOAK=1 runs it")
def test_pipelines_at_once_with_a_server_each_share_a_new_prefect_home(
    pipeline: Pipeline, archive: Path, tmp_path: Path
) -> None:
    on_a_new_home = Pipeline(pipeline.store, tmp_path / "home", pipeline.cwd)

    run_at_once(on_a_new_home, archive, list(range(AT_ONCE)))

    cifar(pipeline, "verify")
