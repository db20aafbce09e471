"""The store under random use, damage and death: what holds whatever happened, told from the files themselves.

`make test` goes through the same sequences each time; with CIFAR_FLOW_SOAK=1 they are others, for some minutes.
"""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from killing import PATIENCE_S, kill_before_request, kill_before_step
from places import SOAK, BucketPlace, FolderPlace, Place, delete, flip_a_bit, halve
from tiny_artifacts import identity_of, predictions_bytes, quiet, results, stage_of
from witness import Witness, manifest_of

from tasks.core.config import Promote
from tasks.core.data.identity import Identity
from tasks.core.errors import CifarFlowError
from tasks.core.promotion_gate import promotion_gate
from tasks.core.store import Store
from tasks.core.store.current import promote_run, roll_back
from tasks.core.store.gc import collect_garbage
from tasks.core.store.history import find_run
from tasks.core.store.promotion_log import read_log, standing_runs
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import LOG, MANIFEST, ROOT_FILES

Action = Callable[[Store], object]
Spoil = Callable[[Place, str], None]

IMAGES = 24
RIGHT = {"good": 23, "poor": 9}  # of the images; the gate tells one from the other
IDENTITIES = [identity_of("archive"), identity_of("generated")]
ARTIFACTS = ("dataset", "weights", "predictions", "per_class", "report")
EXAMPLES, STEPS = (200, 50) if SOAK else (8, 30)
STEPS_OF_A_RUN = 140
STEPS_OF_A_REQUEST = 4  # a folder is changed so often where a bucket is sent one request


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

    with recording_run(store, {"word": word}, {}, quiet) as run:
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
        with promotion_gate(run, policy, 1.0, quiet) as verdict:
            keep("report", *ARTIFACTS[:-1], verdict=str(verdict))
    for ref in found.values():
        run.store.open(ref)


def do_in_its_own_process(action: Callable[[], object], place: Place, death: int | None = None) -> None:
    """Do something in a process of its own, which may be killed right before its so manyth change to the store."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE_S)
            if death and isinstance(place, FolderPlace):
                kill_before_step(death, place.location)
            elif death:
                kill_before_request(1 + death // STEPS_OF_A_REQUEST)
            action()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL)


class How(NamedTuple):
    """How a process acts: killed before a step or not, in a store that it opened before the last death or opens now.

    If it is watched, the store is opened and looked at afterwards.
    """

    death: int | None
    early: bool
    watched: bool


def ways(steps: int) -> st.SearchStrategy[How]:
    return st.builds(How, st.none() | st.integers(1, steps), st.booleans(), st.booleans())


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
spoils = st.sampled_from((delete, halve, flip_a_bit))


class UsedStore(RuleBasedStateMachine):
    """One store, and what may be done with it and to it."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.store = place.open() if isinstance(place, FolderPlace) else None
        self.witness = Witness(place)
        self.asked = Asked("good", IDENTITIES[0], "auto", None, frozenset())
        self.actions = 0

    def do(self, action: Action, how: How) -> None:
        self.actions += 1
        self.act(lambda: action(self.store if self.store and how.early else self.place.open()), how.death)
        self.witness.look()
        if how.watched and self.store:
            self.store = self.place.open()
            self.witness.look_around(self.store)
        elif how.watched:
            self.act(lambda: self.witness.look_around(self.place.open()))

    def act(self, action: Callable[[], object], death: int | None = None) -> None:
        """In this process if it outlives that; on a bucket never, whose connection would not survive the next fork."""
        if self.store and death is None:
            action()
        else:
            do_in_its_own_process(action, self.place, death)

    @rule(asked=runs, how=ways(STEPS_OF_A_RUN))
    def run(self, asked: Asked, how: How) -> None:
        self.asked = asked
        self.run_as_asked(how)

    def run_as_asked(self, how: How) -> None:
        asked = self.asked

        def act(store: Store) -> None:
            with self.refused_unless(not self.witness.current_is_lost()):
                run_once(store, asked, self.actions)

        self.do(act, how)

    @rule(unsteady=unsteady, how=ways(STEPS_OF_A_RUN))
    def run_the_same_again(self, unsteady: frozenset[str], how: How) -> None:
        self.asked = self.asked._replace(refresh=None, unsteady=unsteady)
        self.run_as_asked(how)

    @precondition(lambda self: self.witness.records)
    @rule(keep=st.integers(0, 4), how=ways(80))
    def collect_garbage(self, keep: int, how: How) -> None:
        witness = self.witness

        def act(store: Store) -> None:
            with self.refused_unless(not (witness.gaps() or witness.garbled or witness.current_is_lost())):
                collect_garbage(store, keep, quiet, dry_run=False)
                assert not self.place.all("runs/.")

        self.do(act, how)

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
            standing = standing_runs(read_log(store))
            possible = len(standing) > 1 and self.witness.can_be_promoted(standing[-2])
            with self.refused_unless(possible and not self.witness.current_is_lost()):
                roll_back(store, find_run(store, "previous"), "it was better", quiet)

        self.do(act, how._replace(early=False))  # or it may rightly say that another run was promoted meanwhile

    @staticmethod
    @contextmanager
    def refused_unless(possible: bool) -> Iterator[None]:
        try:
            yield
        except CifarFlowError:
            assert not possible

    @precondition(lambda self: self.witness.whole)
    @rule(pick=picks, pick_file=picks, spoil=spoils)
    def spoil_a_version(self, pick: int, pick_file: int, spoil: Spoil) -> None:
        recent = list(self.witness.whole.items())[-8:]
        version, files = recent[pick % len(recent)]
        name = sorted(files)[pick_file % len(files)]
        if self.place.all(f"{version}/") and not self.is_lost_with_it(name, version, spoil):
            self.witness.spoilt[version].add(name)
            folder = version if name == MANIFEST else self.place.payload(version, manifest_of(files).sha256)
            self.spoil(f"{folder}/{name}", spoil)

    def is_lost_with_it(self, name: str, version: str, spoil: Spoil) -> bool:
        """Whether nothing would tell of a version any more: `lose_a_version` is for that."""
        if spoil is not delete:
            return False
        return len(self.place.all(f"{version}/")) == 1 or (name == MANIFEST and isinstance(self.place, BucketPlace))

    @precondition(lambda self: self.witness.promoted)
    @rule(name=st.sampled_from(sorted(ROOT_FILES)), spoil=spoils)
    def spoil_a_root_file(self, name: str, spoil: Spoil) -> None:
        self.spoil(name, spoil)

    @precondition(lambda self: self.witness.current() and self.witness.is_told_by_log())
    @rule(spoil=spoils)
    def spoil_current_json(self, spoil: Spoil) -> None:
        self.spoil("current.json", spoil)

    @precondition(
        lambda self: self.witness.promotions() and self.witness.promoted.keys() <= self.witness.records.keys()
    )
    @rule(spoil=spoils)
    def spoil_the_log(self, spoil: Spoil) -> None:
        """While every promoted run has a record: what neither of both tells, nobody can."""
        self.witness.log_is_whole = False
        self.spoil(LOG, spoil)

    @precondition(lambda self: self.witness.records)
    @rule(pick=picks, spoil=spoils)
    def spoil_a_record(self, pick: int, spoil: Spoil) -> None:
        """One that is settled, and whose promotion and versions are there to be remembered."""
        run, record = list(self.witness.records.items())[pick % len(self.witness.records)]
        gone = [ref for ref in record.artifacts.values() if str(ref) in self.witness.gone]
        unknown = self.witness.promoted.keys() - {entry.run for entry in self.witness.promotions()}
        if record.status != "running" and not gone and run not in unknown:
            self.spoil(f"runs/{run}.json", spoil)
            self.witness.look()

    @precondition(lambda self: self.witness.whole)
    @rule(pick=picks)
    def lose_a_version(self, pick: int) -> None:
        """One of those that are named by a record, or that nobody would miss."""
        witness = self.witness
        recent = list(witness.whole)[-8:]
        version = recent[pick % len(recent)]
        without_record = [refs for run, refs in witness.promoted.items() if run not in witness.records]
        if version not in [str(ref) for refs in without_record for ref in refs.values()]:
            for name in self.place.all(f"{version}/"):
                self.place.delete(name)
            witness.spoilt.pop(version)
            witness.gone[version] = witness.whole.pop(version)

    @precondition(lambda self: self.witness.gaps() or self.witness.garbled or self.witness.current_is_lost())
    @rule()
    def mend(self) -> None:
        """What `verify` and `gc` advise: bring back records, remove torn lines, promote again what the log lacks."""
        witness, place = self.witness, self.place
        for run in set(witness.garbled) - witness.backups.keys():
            place.delete(f"runs/{run}.json")
        for run in witness.backups.keys() - witness.records.keys():
            place.write(f"runs/{run}.json", witness.backups[run])
        self.act(self.mend_the_log)
        witness.look()

    def mend_the_log(self) -> None:
        witness, place, store = self.witness, self.place, self.place.open()
        witness.look()
        if current := witness.current():
            lines = (place.find(LOG) or b"").splitlines()
            whole = [line for line, entry in zip(lines, witness.log(), strict=True) if entry]
            place.write(LOG, b"".join(line + b"\n" for line in whole))
        for run in [*witness.lacking(), *([current.run] if current else witness.promoted)]:
            if witness.can_be_promoted(run):
                promote_run(store, find_run(store, run), "promoted before", quiet)

    def spoil(self, name: str, spoil: Spoil) -> None:
        if len(self.place.find(name) or b"") > 3:
            spoil(self.place, name)


def test_whatever_happens_a_store_keeps_what_it_promised_and_knows_what_it_lost(place: Place) -> None:
    numbers = count()
    in_a_bucket = isinstance(place, BucketPlace)  # where each takes a minute
    run_state_machine_as_test(
        lambda: UsedStore(place.beside(str(next(numbers)))),
        settings=settings(
            max_examples=max(1, EXAMPLES // 25) if in_a_bucket else EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not SOAK,
            report_multiple_bugs=False,
            database=None,
            deadline=None,
            phases=[Phase.generate],  # what is found is short enough as it is, and takes minutes to shrink
            suppress_health_check=list(HealthCheck),
        ),
    )
