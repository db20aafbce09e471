"""Promotion: who may replace whom, and root files that are always those of one finished run."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
from killing import go_on, killed_at_every_step, next_line, started
from tiny_artifacts import finished_run, identity_of, make_artifact, quiet, results

from tasks.core.artifact import ArtifactRef
from tasks.core.config import Promote
from tasks.core.errors import ExpectedError
from tasks.core.identity import RANKS, Kind
from tasks.core.promotion import (
    JUDGED,
    ROOT_FILES,
    Current,
    decide,
    judged,
    open_settled_store,
    read_current,
    restore_root,
)
from tasks.core.runs import recorded_run
from tasks.core.store import Store, open_store

POLICIES: tuple[Promote, ...] = get_args(Promote)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def log() -> list[str]:
    return []


def root_files(root: Path) -> dict[str, bytes | None]:
    return {name: (root / name).read_bytes() if (root / name).exists() else None for name in ROOT_FILES}


def files_of(word: str) -> dict[str, bytes]:
    """The root files of a run that says `word`."""
    payloads = results(word, identity_of())
    return {name: payloads[artifact][name] for name, artifact in ROOT_FILES.items()}


def logged(root: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (root / "promotions.jsonl").read_text(encoding="utf-8").splitlines()]


def actions(root: Path) -> list[str]:
    return [entry["action"] for entry in logged(root)]


def current(store: Store) -> Current:
    found = read_current(store)
    assert found is not None
    return found


# The verdict


def refs(word: str, images: str, version: str = "0123456789ab") -> dict[str, ArtifactRef]:
    """What a run is judged by: contents named by a word, and the dataset's by its images."""
    said = {name: f"{name} of {word}" for name in JUDGED} | {"dataset": images}
    return {name: ArtifactRef(name=name, version=version, sha256=sha256) for name, sha256 in said.items()}


def promoted(kind: Kind, images: str = "these images", word: str = "before", version: str = "ba9876543210") -> Current:
    return Current(
        run="20260101-000000-abcdef",
        at="2026-01-01T00:00:00.000+00:00",
        who="me@here",
        why="it was good",
        identity=identity_of(kind, images),
        artifacts=refs(word, images, version),
    )


def verdict_on(policy: Promote, kind: Kind, images: str, before: Current | None) -> str:
    return decide(policy, refs("now", images), identity_of(kind, images), before).action


@pytest.mark.parametrize("kind", RANKS)
def test_the_first_run_is_promoted_unless_that_is_forbidden(kind: Kind) -> None:
    verdicts = {policy: verdict_on(policy, kind, "these images", None) for policy in POLICIES}

    assert verdicts == {"auto": "promote", "always": "promote", "never": "refuse"}


@pytest.mark.parametrize(
    ("kind", "before", "images", "verdict"),
    [
        ("official", "official", "these images", "promote"),
        ("archive", "archive", "these images", "promote"),
        ("generated", "generated", "these images", "promote"),
        ("official", "archive", "other images", "promote"),
        ("official", "generated", "other images", "promote"),
        ("archive", "generated", "other images", "promote"),
        ("generated", "archive", "other images", "refuse"),
        ("generated", "official", "other images", "refuse"),
        ("archive", "official", "other images", "refuse"),
        ("official", "official", "other images", "refuse"),
        ("archive", "archive", "other images", "refuse"),
        ("generated", "generated", "other images", "promote"),  # whose archive another zlib compressed
    ],
)
def test_of_itself_a_run_replaces_a_lower_rank_or_one_on_the_same_dataset(
    kind: Kind, before: Kind, images: str, verdict: str
) -> None:
    assert verdict_on("auto", kind, images, promoted(before)) == verdict


@pytest.mark.parametrize(("kind", "before", "images"), list(product(RANKS, RANKS, ["these images", "other images"])))
def test_always_and_never_mean_what_they_say(kind: Kind, before: Kind, images: str) -> None:
    assert verdict_on("always", kind, images, promoted(before)) == "promote"
    assert verdict_on("never", kind, images, promoted(before)) == "refuse"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_results_in_other_versions_keep_the_promoted_run(policy: Promote) -> None:
    before = promoted("archive", word="the same", version="ba9876543210")
    same = refs("the same", "these images", version="0123456789ab")

    verdict = decide(policy, same, identity_of("archive"), before)

    assert (verdict.action, verdict.promoted) == ("keep", True)
    assert verdict.reason == before.why


@pytest.mark.parametrize("name", JUDGED)
def test_a_single_other_result_is_enough_to_be_judged(name: str) -> None:
    before = promoted("archive", word="the same")
    candidate = dict(refs("the same", "these images"))
    candidate[name] = candidate[name].model_copy(update={"sha256": "other"})

    assert decide("auto", candidate, identity_of("official"), before).action == "promote"


@pytest.mark.parametrize(
    ("policy", "kind", "images", "words"),
    [
        ("auto", "generated", "other images", ["generated images", "archive images", "--promote always"]),
        ("auto", "archive", "other images", ["20260101-000000-abcdef", "--promote always"]),
        ("never", "archive", "these images", ["--promote never"]),
    ],
)
def test_a_refusal_says_why_and_what_overrules_it(policy: Promote, kind: Kind, images: str, words: list[str]) -> None:
    identity = identity_of(kind, images)

    verdict = decide(policy, refs("now", images), identity, promoted("archive"))

    assert not verdict.promoted
    assert str(verdict).startswith("not promoted: ")
    assert all(word in str(verdict) for word in words)


# The root files


def test_a_promoted_run_stands_at_the_root(root: Path, log: list[str]) -> None:
    run = finished_run(root, "one", log=log.append)

    assert root_files(root) == files_of("one")
    now = current(open_store(root))
    assert (now.run, now.artifacts) == (run.record.run, run.record.artifacts)
    assert now.identity == identity_of()
    [line] = log
    assert line.startswith(f"run {run.record.run} ")
    assert line.endswith("is promoted: it is the first finished run in this store")


def test_the_latest_run_on_the_same_dataset_takes_its_place(root: Path) -> None:
    finished_run(root, "one")
    second = finished_run(root, "two")

    assert root_files(root) == files_of("two")
    assert current(open_store(root)).run == second.record.run


def test_root_files_are_files_of_their_own(root: Path) -> None:
    """Whatever is done to a root file does no harm to the version that it came from."""
    run = finished_run(root, "one")
    for name in ROOT_FILES:
        assert not (root / name).is_symlink()
        with (root / name).open("ab") as file:
            file.write(b"scribble")

    store = open_store(root)

    for ref in run.record.artifacts.values():
        store.open(ref)
    restore_root(store)
    assert root_files(root) == files_of("one")


def scribble(path: Path) -> None:
    path.write_bytes(b"scribble")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("name", ROOT_FILES)
@pytest.mark.parametrize("damage", [Path.unlink, scribble, cut])
def test_damaged_root_files_are_put_right(root: Path, name: str, damage: Any) -> None:
    finished_run(root, "one")
    damage(root / name)

    restore_root(open_store(root))

    assert root_files(root) == files_of("one")
    assert actions(root) == ["promote"]


def test_root_files_that_are_right_are_not_written_again(root: Path) -> None:
    finished_run(root, "one")
    before = {path.name: path.stat().st_ino for path in root.iterdir() if path.is_file()}

    restore_root(open_store(root))

    assert {path.name: path.stat().st_ino for path in root.iterdir() if path.is_file()} == before


def test_a_store_without_a_promoted_run_has_nothing_to_put_right(root: Path) -> None:
    finished_run(root, "one", policy="never")

    restore_root(open_store(root))

    assert set(root_files(root).values()) == {None}
    assert actions(root) == ["refuse"]


def test_a_refused_run_is_complete_and_on_the_log_and_changes_no_root_file(root: Path) -> None:
    finished_run(root, "one", identity_of("archive"))
    before = (root / "current.json").read_bytes()

    refused = finished_run(root, "two", identity_of("generated", "made up"))

    assert root_files(root) == files_of("one")
    assert (root / "current.json").read_bytes() == before
    assert refused.record.status == "completed"
    assert refused.record.verdict is not None
    assert refused.record.verdict.startswith("not promoted: generated images ranks below archive images")
    assert actions(root) == ["promote", "refuse"]
    assert logged(root)[1]["run"] == refused.record.run
    assert refused.record.verdict.endswith(logged(root)[1]["why"])


def test_a_run_with_the_same_results_keeps_the_promoted_one(root: Path, log: list[str]) -> None:
    first = finished_run(root, "one")

    again = finished_run(root, "one", log=log.append)

    assert current(open_store(root)).run == first.record.run
    assert actions(root) == ["promote"]
    assert again.record.status == "completed"
    assert f"run {again.record.run} " in log[0]
    assert "is the same as the promoted one, which stays: " in log[0]


def test_every_promotion_is_one_line_of_the_log(root: Path) -> None:
    runs = [finished_run(root, word).record for word in ("one", "two", "one", "two")]
    restore_root(open_store(root))

    assert actions(root) == ["promote"] * 4
    assert [entry["run"] for entry in logged(root)] == [record.run for record in runs]
    assert [entry["who"] for entry in logged(root)] == [record.who for record in runs]


def test_a_run_whose_report_fails_is_not_promoted(root: Path) -> None:
    finished_run(root, "one")
    store = open_store(root)

    def fail() -> None:
        with recorded_run(store, {}, {}) as run:
            for name in JUDGED:
                run.keep(make_artifact(store, name, results("two", identity_of())[name]))
            with judged(run, "auto", quiet):
                raise ZeroDivisionError("in the report")

    with pytest.raises(ZeroDivisionError):
        fail()

    assert root_files(root) == files_of("one")
    assert actions(root) == ["promote"]
    assert finished_run(root, "three").record.verdict is not None
    assert root_files(root) == files_of("three")


def lose(store: Store, ref: ArtifactRef) -> None:
    shutil.rmtree(store.folder(ref.name, ref.version))


def test_a_refusal_needs_nothing_of_the_promoted_run_that_is_lost(root: Path) -> None:
    lost = finished_run(root, "one").record.artifacts["weights"]
    lose(open_store(root), lost)

    refused = finished_run(root, "two", policy="never")

    assert refused.record.status == "completed"
    assert root_files(root) == files_of("one")


def test_the_same_results_stand_in_for_a_promoted_run_whose_versions_are_lost(root: Path) -> None:
    lost = finished_run(root, "one").record.artifacts["weights"]
    make_artifact(open_store(root), "weights", results("one", identity_of())["weights"], refresh=True)
    lose(open_store(root), lost)
    (root / "cifar_net.pth").unlink()

    again = finished_run(root, "one")

    assert again.record.status == "completed"
    assert root_files(root) == files_of("one")


def test_a_garbled_current_json_is_said_in_one_line(root: Path) -> None:
    finished_run(root, "one")
    (root / "current.json").write_text('{"run": 1}', encoding="utf-8")

    with pytest.raises(ExpectedError) as raised:
        read_current(open_store(root))

    assert "current.json" in str(raised.value)
    assert "\n" not in str(raised.value)


# Killed, and at the same time

PROMOTE = """
from tiny_artifacts import finished_run
def act(root):
    finished_run(root, "two")
"""
RESTORE = """
from tasks.core.promotion import restore_root
from tasks.core.store import open_store
def act(root):
    restore_root(open_store(root))
"""


@pytest.fixture
def ready(root: Path) -> Path:
    """A store in which run "one" is promoted, and all that runs "two" and "three" will make is there."""
    finished_run(root, "one")
    store = open_store(root)
    for word in ("two", "three"):
        for name, payload in results(word, identity_of()).items():
            make_artifact(store, name, payload)
    return root


def status_of(root: Path, run: str) -> str:
    status: str = json.loads((root / "runs" / f"{run}.json").read_text(encoding="utf-8"))["status"]
    return status


def check_that_all_is_of_the_current_run(root: Path, words: Mapping[str, str]) -> str:
    """Root files, log and record agree with `current.json`; the word of its run."""
    run = current(open_store(root)).run
    word = words.get(run, "two")
    assert root_files(root) == files_of(word)
    assert status_of(root, run) == "completed"
    promotions = [entry["run"] for entry in logged(root) if entry["action"] == "promote"]
    assert len(promotions) == len(set(promotions)) == (1 if word == "one" else 2)
    assert promotions[-1] == run
    return word


def test_a_promotion_killed_at_any_step_is_of_the_old_run_or_of_the_new_one(ready: Path, tmp_path: Path) -> None:
    words = {current(open_store(ready)).run: "one"}
    stood = []

    for root in killed_at_every_step(PROMOTE, ready, tmp_path / "killed"):
        restore_root(open_store(root))
        stood.append(check_that_all_is_of_the_current_run(root, words))
        finished_run(root, "three")
        assert root_files(root) == files_of("three")

    assert stood == sorted(stood)
    assert set(stood) == {"one", "two"}


@pytest.fixture
def stale(ready: Path, tmp_path: Path) -> Path:
    """A store in which run "two" is promoted; the root files and the log are still those of before."""
    folder = tmp_path / "stale"
    shutil.copytree(ready, folder)
    finished_run(ready, "two")
    shutil.copyfile(ready / "current.json", folder / "current.json")
    shutil.copytree(ready / "runs", folder / "runs", dirs_exist_ok=True)
    return folder


def test_putting_the_root_right_may_be_killed_at_any_step(stale: Path, tmp_path: Path) -> None:
    words = {logged(stale)[0]["run"]: "one"}

    for root in killed_at_every_step(RESTORE, stale, tmp_path / "killed"):
        restore_root(open_store(root))

        assert check_that_all_is_of_the_current_run(root, words) == "two"


def test_opening_the_store_for_a_run_finishes_a_promotion_that_was_cut_short(stale: Path) -> None:
    words = {logged(stale)[0]["run"]: "one"}

    open_settled_store(stale, quiet)

    assert check_that_all_is_of_the_current_run(stale, words) == "two"


def test_a_promoted_run_whose_files_are_lost_does_not_keep_the_store_from_being_opened(
    stale: Path, log: list[str]
) -> None:
    lose(open_store(stale), current(open_store(stale)).artifacts["weights"])

    open_settled_store(stale, log.append)

    assert len(log) == 1
    assert "weights/" in log[0]
    finished_run(stale, "three")
    assert root_files(stale) == files_of("three")


def test_a_killed_promotion_leaves_no_half_written_files_once_the_store_is_opened(stale: Path, tmp_path: Path) -> None:
    for root in killed_at_every_step(RESTORE, stale, tmp_path / "killed"):
        restore_root(open_store(root))

        assert [path.name for path in root.glob(".*") if path.is_file()] == []


JUDGING = """
import sys
from pathlib import Path
from tasks.core.runs import recorded_run
from tasks.core.store import open_store
from tiny_artifacts import finish, identity_of

def tell(line):
    print(line, flush=True)

def wait():
    tell("making the report")
    sys.stdin.readline()

root, word, speed = sys.argv[1:]
with recorded_run(open_store(Path(root)), {}, {}) as run:
    finish(run, word, identity_of(), log=tell, before_report=wait if speed == "slowly" else lambda: None)
"""


def test_two_runs_are_judged_one_after_the_other(root: Path) -> None:
    with started(JUDGING, root, "one", "slowly") as first:
        assert next_line(first) == "making the report"
        with started(JUDGING, root, "two", "at once") as second:
            assert next_line(second) == "waiting for another run, which works on promotion"
            [one], [two] = go_on(first), go_on(second)

    [first_run, second_run] = [entry["run"] for entry in logged(root)]
    assert one.startswith(f"run {first_run} ")
    assert one.endswith("is promoted: it is the first finished run in this store")
    assert two.startswith(f"run {second_run} ")
    assert two.endswith(f"is promoted: it is the latest run on the same dataset, in place of run {first_run}")
    assert root_files(root) == files_of("two")


RESTORE_AND_STOP = """
import os, signal, sys
from pathlib import Path
from tasks.core.promotion import restore_root
from tasks.core.store import open_store

def stop_before_the_first_root_file(event, arguments):
    if event == "os.rename" and Path(arguments[1]).name == "per_class.parquet":
        os.kill(os.getpid(), signal.SIGSTOP)

store = open_store(Path(sys.argv[1]))
sys.addaudithook(stop_before_the_first_root_file)
restore_root(store)
"""


def test_putting_the_root_right_never_undoes_a_promotion_that_another_process_makes(root: Path) -> None:
    finished_run(root, "one")
    for name in ROOT_FILES:
        (root / name).unlink()
    with started(RESTORE_AND_STOP, root) as restoring:
        assert os.WIFSTOPPED(os.waitpid(restoring.pid, os.WUNTRACED)[1])
        with started(JUDGING, root, "two", "at once") as judging:
            next_line(judging)  # it is promoted, or it waits
            restoring.send_signal(signal.SIGCONT)
            go_on(judging)
            go_on(restoring)

    assert root_files(root) == files_of("two")


# The log


@pytest.mark.parametrize("left", [0.1, 0.5, 0.99])
def test_a_torn_last_line_of_the_log_costs_that_line_only(root: Path, left: float) -> None:
    finished_run(root, "one")
    finished_run(root, "two", policy="never")
    whole = (root / "promotions.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = lines[1][: int(len(lines[1]) * left)]
    (root / "promotions.jsonl").write_bytes(lines[0] + torn)

    finished_run(root, "three")

    first, second, third = (root / "promotions.jsonl").read_bytes().splitlines()
    assert first == lines[0].rstrip()
    assert second == torn
    assert json.loads(third)["action"] == "promote"


@pytest.mark.parametrize("left", [0, 0.5, 0.99])
def test_the_torn_line_of_the_current_promotion_is_written_again(root: Path, left: float) -> None:
    run = finished_run(root, "one")
    whole = (root / "promotions.jsonl").read_bytes()
    (root / "promotions.jsonl").write_bytes(whole[: int(len(whole) * left)])

    for _ in range(2):
        restore_root(open_store(root))

    lines = (root / "promotions.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[-1] == whole
    assert json.loads(lines[-1])["run"] == run.record.run
    assert len(lines) == (1 if left == 0 else 2)


def test_a_line_that_lacks_only_its_end_is_not_written_twice(root: Path) -> None:
    finished_run(root, "one")
    whole = (root / "promotions.jsonl").read_bytes()
    (root / "promotions.jsonl").write_bytes(whole.rstrip(b"\n"))

    finished_run(root, "two")

    assert actions(root) == ["promote", "promote"]


@pytest.mark.parametrize("garbage", [b"\0" * 40, b"\xff\xfe\x80"], ids=["zeros", "no text"])
def test_garbage_at_the_end_of_the_log_does_not_stop_promotions(root: Path, garbage: bytes) -> None:
    finished_run(root, "one")
    with (root / "promotions.jsonl").open("ab") as file:
        file.write(garbage)

    finished_run(root, "two")

    assert root_files(root) == files_of("two")
    assert json.loads((root / "promotions.jsonl").read_bytes().splitlines()[-1])["action"] == "promote"
