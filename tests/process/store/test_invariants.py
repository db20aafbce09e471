"""The store under random use, damage and kills, compared with a model after every event.

`make test` repeats the same sequences each time; with CIFAR_FLOW_SOAK=1 they are random, for some minutes.
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
from store_model import StoreModel, manifest_of
from tiny_artifacts import build_of, identity_of, predictions_bytes, refreshing, run_payloads

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
Damage = Callable[[Place, str], None]

IMAGES = 24
RIGHT = {"good": 23, "poor": 9}  # of the images; the gate promotes one and refuses the other
IDENTITIES = [identity_of("archive"), identity_of("generated")]
ARTIFACTS = ("dataset", "weights", "predictions", "per_class", "report")
EXAMPLES, STEPS = (200, 50) if SOAK else (8, 30)
STEPS_OF_A_RUN = 140
STEPS_OF_A_REQUEST = 4  # changes to a folder for each request to a bucket


class RunRequest(NamedTuple):
    """The settings of a run; the `nondeterministic` artifacts get other bytes at each build, as on a GPU."""

    word: str
    identity: Identity
    policy: Promote
    refresh: str | None
    nondeterministic: frozenset[str]


def run_pipeline(store: Store, request: RunRequest, seed: int) -> None:
    """A run whose artifacts depend on each other."""
    word, identity, policy, refresh, nondeterministic = request
    correct = [image < RIGHT[word] for image in range(IMAGES)]
    payloads = run_payloads(word, identity, correct)
    if "predictions" in nondeterministic:  # one prediction differs
        altered = predictions_bytes([right ^ (image == seed % IMAGES) for image, right in enumerate(correct)])
        payloads["predictions"] = {"predictions.parquet": altered}
    for name in nondeterministic - {"predictions"}:
        payloads[name] = {file: content + b", build %d" % seed for file, content in payloads[name].items()}

    with recording_run(store, {"word": word}, {}) as run:
        refs = run.record.artifacts

        def build(name: str, *inputs: str, **ingredients: str) -> None:
            digests = {each: refs[each].sha256 for each in inputs}
            wanted = build_of(payloads[name], name, inputs=digests, settings=ingredients)
            wanted = replace(wanted, inputs=tuple(refs[each] for each in inputs))
            run.add_artifacts(refreshing(run.store, refresh == name).get_or_create(wanted).ref)

        build("dataset", source=f"{identity.kind} {identity.sha256}")
        build("weights", "dataset", word=word)
        build("predictions", "dataset", "weights")
        build("per_class", "predictions")
        with promotion_gate(run, policy, 1.0) as verdict:
            build("report", *ARTIFACTS[:-1], verdict=str(verdict))
    for ref in refs.values():
        run.store.open(ref)


def run_in_child_process(action: Callable[[], object], place: Place, kill_step: int | None = None) -> None:
    """Act in a child process, which is killed before the given step."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(PATIENCE_S)
            if kill_step and isinstance(place, FolderPlace):
                kill_before_step(kill_step, place.location)
            elif kill_step:
                kill_before_request(1 + kill_step // STEPS_OF_A_REQUEST)
            action()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, -signal.SIGKILL)


class Conditions(NamedTuple):
    """How an action runs.

    Attributes:
        kill_step: The step before which the process is killed.
        is_stale: Whether it uses a store that was opened before the last kill.
        is_checked: Whether the store is opened and checked afterwards.
    """

    kill_step: int | None
    is_stale: bool
    is_checked: bool


def conditions_up_to(steps: int) -> st.SearchStrategy[Conditions]:
    return st.builds(Conditions, st.none() | st.integers(1, steps), st.booleans(), st.booleans())


nondeterministic = st.frozensets(st.sampled_from(ARTIFACTS[1:]))
runs = st.builds(
    RunRequest,
    st.sampled_from(sorted(RIGHT)),
    st.sampled_from(IDENTITIES),
    st.sampled_from(("auto", "auto", "always", "never")),
    st.sampled_from((None, None, *ARTIFACTS)),
    nondeterministic,
)
picks = st.integers(0, 999)
damages = st.sampled_from((delete, halve, flip_a_bit))


class StoreMachine(RuleBasedStateMachine):
    """The actions and kinds of damage that hypothesis combines."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.store = place.open() if isinstance(place, FolderPlace) else None
        self.model = StoreModel(place)
        self.request = RunRequest("good", IDENTITIES[0], "auto", None, frozenset())
        self.actions = 0

    def do(self, action: Action, conditions: Conditions) -> None:
        self.actions += 1
        self.act(
            lambda: action(self.store if self.store and conditions.is_stale else self.place.open()),
            conditions.kill_step,
        )
        self.model.check()
        if conditions.is_checked and self.store:
            self.store = self.place.open()
            self.model.check_opened_store(self.store)
        elif conditions.is_checked:
            self.act(lambda: self.model.check_opened_store(self.place.open()))

    def act(self, action: Callable[[], object], kill_step: int | None = None) -> None:
        """Act in this process if possible; never on a bucket, whose connection does not survive a fork."""
        if self.store and kill_step is None:
            action()
        else:
            run_in_child_process(action, self.place, kill_step)

    @rule(request=runs, conditions=conditions_up_to(STEPS_OF_A_RUN))
    def run(self, request: RunRequest, conditions: Conditions) -> None:
        self.request = request
        self.repeat_run(conditions)

    def repeat_run(self, conditions: Conditions) -> None:
        request = self.request

        def act(store: Store) -> None:
            with self.refused_unless(not self.model.current_is_lost()):
                run_pipeline(store, request, self.actions)

        self.do(act, conditions)

    @rule(nondeterministic=nondeterministic, conditions=conditions_up_to(STEPS_OF_A_RUN))
    def run_the_same_again(self, nondeterministic: frozenset[str], conditions: Conditions) -> None:
        self.request = self.request._replace(refresh=None, nondeterministic=nondeterministic)
        self.repeat_run(conditions)

    @precondition(lambda self: self.model.records)
    @rule(keep=st.integers(0, 4), conditions=conditions_up_to(80))
    def collect_garbage(self, keep: int, conditions: Conditions) -> None:
        model = self.model

        def act(store: Store) -> None:
            with self.refused_unless(not (model.expected_gaps() or model.unreadable or model.current_is_lost())):
                collect_garbage(store, keep, dry_run=False)
                assert not self.place.all("runs/.")

        self.do(act, conditions)

    @precondition(lambda self: self.model.records)
    @rule(pick=picks, conditions=conditions_up_to(40))
    def promote(self, pick: int, conditions: Conditions) -> None:
        run = list(self.model.records)[pick % len(self.model.records)]

        def act(store: Store) -> None:
            with self.refused_unless(self.model.can_be_promoted(run)):
                promote_run(store, find_run(store, run), "asked for")

        self.do(act, conditions)

    @precondition(lambda self: self.model.promoted)
    @rule(conditions=conditions_up_to(40))
    def roll_back(self, conditions: Conditions) -> None:
        def act(store: Store) -> None:
            standing = standing_runs(read_log(store))
            possible = len(standing) > 1 and self.model.can_be_promoted(standing[-2])
            with self.refused_unless(possible and not self.model.current_is_lost()):
                roll_back(store, find_run(store, "previous"), "it was better")

        self.do(act, conditions._replace(is_stale=False))  # a stale store may report another promotion

    @staticmethod
    @contextmanager
    def refused_unless(possible: bool) -> Iterator[None]:
        try:
            yield
        except CifarFlowError:
            assert not possible

    @precondition(lambda self: self.model.versions)
    @rule(pick=picks, pick_file=picks, damage=damages)
    def damage_a_version(self, pick: int, pick_file: int, damage: Damage) -> None:
        recent = list(self.model.versions.items())[-8:]
        version, files = recent[pick % len(recent)]
        name = sorted(files)[pick_file % len(files)]
        if self.place.all(f"{version}/") and not self.would_be_lost(name, version, damage):
            self.model.damaged[version].add(name)
            folder = version if name == MANIFEST else self.place.payload(version, manifest_of(files).sha256)
            self.damage(f"{folder}/{name}", damage)

    def would_be_lost(self, name: str, version: str, damage: Damage) -> bool:
        """Whether the damage would remove the last trace of a version, as `lose_a_version` does."""
        if damage is not delete:
            return False
        return len(self.place.all(f"{version}/")) == 1 or (name == MANIFEST and isinstance(self.place, BucketPlace))

    @precondition(lambda self: self.model.promoted)
    @rule(name=st.sampled_from(sorted(ROOT_FILES)), damage=damages)
    def damage_a_root_file(self, name: str, damage: Damage) -> None:
        self.damage(name, damage)

    @precondition(lambda self: self.model.current() and self.model.is_restorable())
    @rule(damage=damages)
    def damage_current_json(self, damage: Damage) -> None:
        self.damage("current.json", damage)

    @precondition(lambda self: self.model.promotions() and self.model.promoted.keys() <= self.model.records.keys())
    @rule(damage=damages)
    def damage_the_log(self, damage: Damage) -> None:
        """Only while every promoted run has a record, from which the log can be completed."""
        self.model.is_log_complete = False
        self.damage(LOG, damage)

    @precondition(lambda self: self.model.records)
    @rule(pick=picks, damage=damages)
    def damage_a_record(self, pick: int, damage: Damage) -> None:
        """Only the record of an ended run whose promotion and versions are known from elsewhere."""
        run, record = list(self.model.records.items())[pick % len(self.model.records)]
        lost = [ref for ref in record.artifacts.values() if str(ref) in self.model.lost]
        unknown = self.model.promoted.keys() - {entry.run for entry in self.model.promotions()}
        if record.status != "running" and not lost and run not in unknown:
            self.damage(f"runs/{run}.json", damage)
            self.model.check()

    @precondition(lambda self: self.model.versions)
    @rule(pick=picks)
    def lose_a_version(self, pick: int) -> None:
        """Only a version that a record refers to, or that no run needs."""
        model = self.model
        recent = list(model.versions)[-8:]
        version = recent[pick % len(recent)]
        without_record = [refs for run, refs in model.promoted.items() if run not in model.records]
        if version not in [str(ref) for refs in without_record for ref in refs.values()]:
            for name in self.place.all(f"{version}/"):
                self.place.delete(name)
            model.damaged.pop(version)
            model.lost[version] = model.versions.pop(version)

    @precondition(lambda self: self.model.expected_gaps() or self.model.unreadable or self.model.current_is_lost())
    @rule()
    def repair(self) -> None:
        """Follow the advice of `verify` and `gc`: restore records, remove torn lines, promote again."""
        model, place = self.model, self.place
        for run in set(model.unreadable) - model.backups.keys():
            place.delete(f"runs/{run}.json")
        for run in model.backups.keys() - model.records.keys():
            place.write(f"runs/{run}.json", model.backups[run])
        self.act(self.repair_log)
        model.check()

    def repair_log(self) -> None:
        model, place, store = self.model, self.place, self.place.open()
        model.check()
        if current := model.current():
            lines = (place.find(LOG) or b"").splitlines()
            readable = [line for line, entry in zip(lines, model.log(), strict=True) if entry]
            place.write(LOG, b"".join(line + b"\n" for line in readable))
        for run in [*model.missing_promotions(), *([current.run] if current else model.promoted)]:
            if model.can_be_promoted(run):
                promote_run(store, find_run(store, run), "promoted before")

    def damage(self, name: str, damage: Damage) -> None:
        if len(self.place.find(name) or b"") > 3:
            damage(self.place, name)


def test_a_store_keeps_its_promises_under_damage_and_kills(place: Place) -> None:
    numbers = count()
    in_a_bucket = isinstance(place, BucketPlace)  # which takes a minute per example
    run_state_machine_as_test(
        lambda: StoreMachine(place.beside(str(next(numbers)))),
        settings=settings(
            max_examples=max(1, EXAMPLES // 25) if in_a_bucket else EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not SOAK,
            report_multiple_bugs=False,
            database=None,
            deadline=None,
            phases=[Phase.generate],  # shrinking takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
