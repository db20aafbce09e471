"""The store under random use, damage and death: what holds whatever happened, told from the files themselves.

`make test` goes through the same sequences each time; with CIFAR_FLOW_SOAK=1 they are others, for some minutes.
"""

import hashlib
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from killing import PATIENCE_S, kill_before_step
from places import FolderPlace, flip_a_bit
from tiny_artifacts import identity_of, predictions_bytes, quiet, results, stage_of

from tasks.core.config import Promote
from tasks.core.errors import ExpectedError
from tasks.core.gate import judged
from tasks.core.identity import Identity
from tasks.core.store import ArtifactRef, DamagedArtifact, Store, open_store
from tasks.core.store.artifact import Manifest
from tasks.core.store.collection import collect
from tasks.core.store.current import ROOT_FILES, Current, promote_run, roll_back
from tasks.core.store.history import find_run
from tasks.core.store.promotions import in_good_standing, read_log
from tasks.core.store.runs import RunRecord, recorded_run
from tasks.core.store.storage import MANIFEST
from tasks.core.store.verification import verify

Files = dict[str, bytes]
Action = Callable[[Store], object]
Spoil = Callable[[FolderPlace, str], None]

SOAK = bool(os.environ.get("CIFAR_FLOW_SOAK"))
IMAGES = 24
RIGHT = {"good": 23, "poor": 9}  # of the images; the gate tells one from the other
IDENTITIES = [identity_of("archive"), identity_of("generated")]
ARTIFACTS = ("dataset", "weights", "predictions", "per_class", "report")
STEPS_OF_A_RUN = 140


class Asked(NamedTuple):
    """The settings of a run; the artifacts that are `unsteady` come out otherwise at each build, as on a GPU."""

    word: str
    identity: Identity
    policy: Promote
    refresh: str | None
    unsteady: frozenset[str]


def run_once(store: Store, asked: Asked, seed: int) -> None:
    """A run whose artifacts follow from one another."""
    word, identity, policy, refresh, unsteady = asked
    correct = [image < RIGHT[word] for image in range(IMAGES)]
    payloads = results(word, identity, correct)
    if "predictions" in unsteady:  # one image is answered otherwise
        altered = predictions_bytes([right ^ (image == seed % IMAGES) for image, right in enumerate(correct)])
        payloads["predictions"] = {"predictions.parquet": altered}
    for name in unsteady - {"predictions"}:
        payloads[name] = {file: content + b", build %d" % seed for file, content in payloads[name].items()}

    with recorded_run(store, {"word": word}, {}, quiet) as run:
        found = run.record.artifacts

        def keep(name: str, *inputs: str, **ingredients: str) -> None:
            digests = {each: found[each].sha256 for each in inputs}
            stage = stage_of(payloads[name], name, inputs=digests, settings=ingredients)
            stage = replace(stage, inputs=tuple(found[each] for each in inputs))
            run.keep(run.store.get_or_create(stage, quiet, refresh=refresh == name).ref)

        keep("dataset", source=f"{identity.kind} {identity.sha256}")
        keep("weights", "dataset", word=word)
        keep("predictions", "dataset", "weights")
        keep("per_class", "predictions")
        with judged(run, policy, 1.0, quiet) as verdict:
            keep("report", *ARTIFACTS[:-1], verdict=str(verdict))
    for ref in found.values():
        run.store.open(ref)


def do_in_a_mortal_process(action: Callable[[], object], root: Path, step: int) -> None:
    """Do something in a process of its own, which is killed right before its so manyth change to the store."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE_S)
            kill_before_step(step, str(root))
            action()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL)


class Witness:
    """What was seen of a store from outside: its versions as they appeared, and which of their files were spoilt since.

    Those that were found damaged and set aside are `gone`. Versions that were collected are forgotten, as in the store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.whole: dict[str, Files] = {}
        self.spoilt: dict[str, set[str]] = {}
        self.gone: dict[str, Files] = {}
        self.records: dict[str, RunRecord] = {}
        self.promoted: set[str] = set()

    def look(self) -> None:
        """Check what holds at any moment, even if a process was killed just now and nobody opened the store since."""
        for lock in self.root.glob(".work/locks/*.lock"):
            with FileLock(lock).acquire(timeout=0):
                pass
        for path in sorted(self.root.glob("runs/[!.]*")):
            self.records[path.stem] = RunRecord.model_validate_json(path.read_bytes())
        self.promoted |= {current.run} if (current := self.current()) else set()
        assert not [run for run in self.promoted if self.records[run].collected]
        self._look_at_versions()

    def _look_at_versions(self) -> None:
        there = {f"{path.parent.name}/{path.name}": files_in(path) for path in self.root.glob("[!.]*/*/")}
        for version in there.keys() - self.whole.keys():
            check_is_whole(version, there[version])
            assert self.gone.pop(version, there[version]) == there[version], f"{version} came back with other bytes"
        self.whole |= {version: there[version] for version in sorted(there) if version not in self.whole}
        for version in self.whole.keys() - there.keys():
            self._check_may_be_absent(version, self.spoilt.pop(version), self.whole.pop(version))
        for version, held in there.items():
            wrong = {name for name, content in self.whole[version].items() if held.get(name) != content}
            assert wrong <= self.spoilt.get(version, set()), f"{version}: {wrong} changed"
            self.spoilt[version] = wrong

    def _check_may_be_absent(self, version: str, spoilt: set[str], before: Files) -> None:
        if spoilt and any(self.root.glob(f".quarantine/{version.replace('/', '-')}-*T*/")):
            self.gone[version] = before
        else:
            assert version not in map(str, self.wanted()), f"{version} is lost"

    def current(self) -> Current | None:
        path = self.root / "current.json"
        return Current.model_validate_json(path.read_bytes()) if path.exists() else None

    def wanted(self) -> list[ArtifactRef]:
        """What the runs are made of that were not collected."""
        return [ref for each in self.records.values() if not each.collected for ref in each.artifacts.values()]

    def is_whole(self, ref: ArtifactRef) -> bool:
        return str(ref) in self.whole and not self.spoilt[str(ref)]

    def can_be_promoted(self, run: str) -> bool:
        record = self.records[run]
        whole = all(self.is_whole(record.artifacts[name]) for name in ROOT_FILES.values() if name in record.artifacts)
        return record.status == "completed" and not record.collected and whole

    def look_around(self, store: Store) -> None:
        """Check what holds in a store that was just opened."""
        self.look()
        assert self._half_done() == []
        for ref in self.wanted():
            if self.is_whole(ref):
                assert files_in(store.open(ref)) == self.whole[str(ref)]
            else:
                with pytest.raises(DamagedArtifact):
                    store.open(ref)
        self._check_current_run(store)
        wrong = self._wrong()
        found = {finding.wrong: finding.known for _, piece in verify(store) for finding in piece}
        assert {next(filter(words.startswith, wrong), words): known for words, known in found.items()} == wrong

    def _half_done(self) -> list[Path]:
        """What is half written, but for records, which the next collection sweeps, and for what is not healed yet."""
        damaged = [self.root / version for version, files in self.spoilt.items() if files]
        left_for_later = [self.root / name for name in (".work", ".quarantine", "runs")] + damaged
        hidden = [path for path in self.root.rglob(".*") if not {path, *path.parents} & set(left_for_later)]
        return [*hidden, *self.root.glob(".work/staging/*"), *self.root.glob(".work/trash/*")]

    def _check_current_run(self, store: Store) -> None:
        current, promotions = self.current(), [entry for entry in read_log(store) if entry.action != "refuse"]
        assert promotions[-1:] == ([current.entry] if current else [])
        assert {entry.run for entry in promotions} == self.promoted
        assert {self.records[run].status for run in self.promoted} <= {"completed"}
        for name, artifact in ROOT_FILES.items():
            if current and self.is_whole(ref := current.artifacts[artifact]):
                assert files_in(self.root)[name] == self.whole[str(ref)][name]

    def _wrong(self) -> dict[str, bool]:
        """How each finding of `verify` is to begin, and whether it is to be known already."""
        wrong: dict[str, bool] = {}
        for version, files in self.spoilt.items():
            wrong |= {f"{version}: {'its manifest' if MANIFEST in files else name} is": False for name in files}
        for run, record in self.records.items():
            gone = [ref for ref in record.artifacts.values() if str(ref) in self.gone and not record.collected]
            wrong |= {f"run {run}: its {ref} was damaged and set aside": True for ref in gone}
        if current := self.current():
            for name, artifact in ROOT_FILES.items():
                version = str(current.artifacts[artifact])
                if version in self.gone or MANIFEST in self.spoilt[version]:
                    wrong[f"run {current.run}: the current run's {version} is lost"] = False
                elif files_in(self.root).get(name) != self.whole[version][name]:
                    wrong[f"at the root: {name} is"] = False
        return wrong


def files_in(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


def check_is_whole(version: str, held: Files) -> None:
    manifest = Manifest.model_validate_json(held[MANIFEST])
    assert str(manifest.ref) == version
    assert manifest.holds_together()
    payload = {name: hashlib.sha256(content).hexdigest() for name, content in held.items() if name != MANIFEST}
    assert payload == {name: facts.sha256 for name, facts in manifest.files.items()}


class How(NamedTuple):
    """How a process acts: killed before a step or not, in a store that it opened before the last death or opens now.

    If it is watched, the store is opened and looked at afterwards.
    """

    death: int | None
    early: bool
    watched: bool


def ways(steps: int) -> st.SearchStrategy[How]:
    return st.builds(How, st.none() | st.integers(1, steps), st.booleans(), st.booleans())


def lose(place: FolderPlace, name: str) -> None:
    (place.root / name).unlink()


def cut(place: FolderPlace, name: str) -> None:
    place.write(name, place.read(name)[: len(place.read(name)) // 2])


unsteady = st.frozensets(st.sampled_from(ARTIFACTS[1:]))
runs = st.builds(
    Asked,
    st.sampled_from(sorted(RIGHT)),
    st.sampled_from(IDENTITIES),
    st.sampled_from(("auto", "auto", "always", "never")),
    st.sampled_from((None, None, *ARTIFACTS)),
    unsteady,
)
picks = st.integers(0, 999)
spoils = st.sampled_from((lose, cut, flip_a_bit))


class UsedStore(RuleBasedStateMachine):
    """One store, and what may be done with it and to it."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.store = open_store(self.root, quiet)
        self.witness = Witness(self.root)
        self.asked = Asked("good", IDENTITIES[0], "auto", None, frozenset())
        self.actions = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def do(self, action: Action, how: How) -> None:
        def act() -> None:
            action(self.store if how.early else open_store(self.root, quiet))

        self.actions += 1
        if how.death is None:
            act()
        else:
            do_in_a_mortal_process(act, self.root, how.death)
        self.witness.look()
        if how.watched:
            self.store = open_store(self.root, quiet)
            self.witness.look_around(self.store)

    @rule(asked=runs, how=ways(STEPS_OF_A_RUN))
    def run(self, asked: Asked, how: How) -> None:
        self.asked = asked
        self.do(lambda store: run_once(store, asked, self.actions), how)

    @rule(unsteady=unsteady, how=ways(STEPS_OF_A_RUN))
    def run_the_same_again(self, unsteady: frozenset[str], how: How) -> None:
        asked = self.asked._replace(refresh=None, unsteady=unsteady)
        self.do(lambda store: run_once(store, asked, self.actions), how)

    @precondition(lambda self: self.witness.records)
    @rule(keep=st.integers(0, 4), how=ways(80))
    def collect(self, keep: int, how: How) -> None:
        self.do(lambda store: collect(store, keep, quiet, dry_run=False), how)
        assert how.death or not list(self.root.glob("runs/.*"))

    @precondition(lambda self: self.witness.records)
    @rule(pick=picks, how=ways(40))
    def promote(self, pick: int, how: How) -> None:
        run = list(self.witness.records)[pick % len(self.witness.records)]

        def act(store: Store) -> None:
            with self.refused_unless(self.witness.can_be_promoted(run)):
                promote_run(store, find_run(store, run), "asked for", quiet)

        self.do(act, how)

    @precondition(lambda self: self.witness.promoted)
    @rule(how=ways(40))
    def roll_back(self, how: How) -> None:
        def act(store: Store) -> None:
            standing = in_good_standing(read_log(store))
            with self.refused_unless(len(standing) > 1 and self.witness.can_be_promoted(standing[-2])):
                roll_back(store, find_run(store, "previous"), "it was better", quiet)

        self.do(act, how._replace(early=False))  # or it may rightly say that another run was promoted meanwhile

    @staticmethod
    @contextmanager
    def refused_unless(possible: bool) -> Iterator[None]:
        try:
            yield
        except ExpectedError:
            assert not possible

    @precondition(lambda self: self.witness.whole)
    @rule(pick=picks, pick_file=picks, spoil=spoils)
    def spoil_a_version(self, pick: int, pick_file: int, spoil: Spoil) -> None:
        recent = list(self.witness.whole.items())[-8:]
        version, files = recent[pick % len(recent)]
        name = sorted(files)[pick_file % len(files)]
        self.witness.spoilt[version].add(name)
        self.spoil(f"{version}/{name}", spoil)

    @precondition(lambda self: self.witness.promoted)
    @rule(name=st.sampled_from(sorted(ROOT_FILES)), spoil=spoils)
    def spoil_a_root_file(self, name: str, spoil: Spoil) -> None:
        self.spoil(name, spoil)

    def spoil(self, name: str, spoil: Spoil) -> None:
        path = self.root / name
        if path.exists() and path.stat().st_size > 3:
            spoil(FolderPlace(self.root), name)


def test_whatever_happens_a_store_keeps_what_it_promised_and_knows_what_it_lost() -> None:
    run_state_machine_as_test(
        UsedStore,
        settings=settings(
            max_examples=200 if SOAK else 16,
            stateful_step_count=50 if SOAK else 30,
            derandomize=not SOAK,
            report_multiple_bugs=False,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
