"""The promoted files of a store, its log and its current run."""

import json

from places import Place
from tiny_artifacts import finished_run, identity_of, run_payloads

from tasks.core.store.current import Current, read_current
from tasks.core.store.runs import RunRecord
from tasks.core.store.storage import ROOT_FILES


def root_files(place: Place) -> dict[str, bytes]:
    return {name: place.read(name) for name in place.names() if name in ROOT_FILES}


def files_of(word: str) -> dict[str, bytes]:
    """The root files of the run with this word."""
    payloads = run_payloads(word, identity_of())
    return {name: payloads[artifact][name] for name, artifact in ROOT_FILES.items()}


def logged(place: Place) -> list[dict[str, str]]:
    return [json.loads(line) for line in place.read("promotions.jsonl").splitlines()]


def actions(place: Place) -> list[str]:
    return [entry["action"] for entry in logged(place)]


def current(place: Place) -> Current:
    run = read_current(place.open())
    assert run is not None
    return run


def finished(place: Place, *words: str) -> list[RunRecord]:
    return [finished_run(place.location, word).record for word in words]
