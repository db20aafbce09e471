"""The lineage of a version: its ancestors, its descendants, and the runs that use it."""

from dataclasses import replace

import pytest
from places import BUCKET_IN_SOAK, Place, flip_a_bit
from tiny_artifacts import build_of, finished_run, refreshing

from tasks.core.errors import InputError
from tasks.core.store import ArtifactRef, Store
from tasks.core.store.lineage import find_lineage
from tasks.core.store.runs import recording_run


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def build(store: Store, name: str, *inputs: ArtifactRef, word: str = "", refresh: bool = False) -> ArtifactRef:
    """Build an artifact of a few bytes from others."""
    key = {"inputs": {ref.name: ref.sha256 for ref in inputs}, "settings": {"word": word}}
    stage = replace(build_of({"file": f"{name} {word}".encode()}, name, **key), inputs=inputs)
    return refreshing(store, refresh).get_or_create(stage).ref


def ancestors(store: Store, ref: ArtifactRef) -> list[tuple[int, str]]:
    return [(each.depth, str(each.ref)) for each in find_lineage(store, str(ref)).made_from]


def descendants(store: Store, ref: ArtifactRef) -> set[str]:
    return {str(each) for each in find_lineage(store, str(ref)).used_for}


def refused(store: Store, name: str) -> str:
    with pytest.raises(InputError) as raised:
        find_lineage(store, name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_ancestors_reach_up_to_the_archive(store: Store) -> None:
    raw = build(store, "raw")
    dataset = build(store, "dataset", raw)
    weights = build(store, "weights", dataset)
    predictions = build(store, "predictions", dataset, weights)

    assert ancestors(store, raw) == []
    assert ancestors(store, weights) == [(1, str(dataset)), (2, str(raw))]
    assert ancestors(store, predictions) == [
        (1, str(dataset)),
        (2, str(raw)),
        (1, str(weights)),
        (2, str(dataset)),
        (3, str(raw)),
    ]


@BUCKET_IN_SOAK
def test_descendants_are_the_direct_ones(store: Store) -> None:
    raw = build(store, "raw")
    dataset = build(store, "dataset", raw)
    weights = [build(store, "weights", dataset, word=word) for word in ("one", "two")]
    predictions = build(store, "predictions", dataset, weights[0])

    assert descendants(store, raw) == {str(dataset)}
    assert descendants(store, dataset) == {str(weights[0]), str(weights[1]), str(predictions)}
    assert descendants(store, weights[0]) == {str(predictions)}
    assert descendants(store, weights[1]) == set()


def test_a_second_attempt_with_the_same_bytes_has_a_lineage_of_its_own(store: Store) -> None:
    dataset = build(store, "dataset")
    first = build(store, "weights", dataset)
    predictions = build(store, "predictions", first)
    second = build(store, "weights", dataset, refresh=True)

    assert second.sha256 == first.sha256
    assert build(store, "predictions", second) == predictions
    assert descendants(store, first) == {str(predictions)}
    assert descendants(store, second) == set()
    assert ancestors(store, predictions) == [(1, str(first)), (2, str(dataset))]


@BUCKET_IN_SOAK
def test_every_run_with_a_version_is_listed(place: Place, store: Store) -> None:
    one, two = (finished_run(place.location, word).record for word in ("one", "two"))

    assert find_lineage(store, str(one.artifacts["weights"])).runs == (one.run,)
    assert set(find_lineage(store, str(one.artifacts["dataset"])).runs) == {one.run, two.run}


@BUCKET_IN_SOAK
def test_an_unused_version_lists_no_run(store: Store) -> None:
    assert find_lineage(store, str(build(store, "weights"))).runs == ()


def test_a_run_in_progress_is_listed(store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        run.add_artifacts(build(run.store, "weights"))

        lineage = find_lineage(store, str(run.record.artifacts["weights"]))

        assert lineage.runs == (run.record.run,)
        assert lineage.manifest.made.run == run.record.run


def test_a_unique_beginning_of_a_version_is_enough(store: Store) -> None:
    weights = build(store, "weights")

    assert find_lineage(store, f"weights/{weights.version[:1]}").manifest.ref == weights


@pytest.mark.parametrize(
    "name", ["weights/", "weights/zzz", "/", "nothing/0", "weights", "runs/2", "/weights", "../store"]
)
@BUCKET_IN_SOAK
def test_an_unknown_version_is_refused_on_one_line(store: Store, name: str) -> None:
    build(store, "weights")

    assert refused(store, name) == f"{name}: expected NAME/VERSION of one version in the store, got 0 that match"


@BUCKET_IN_SOAK
def test_an_ambiguous_beginning_is_refused_with_the_count(store: Store) -> None:
    beginnings = [build(store, "weights", word=str(number)).version[0] for number in range(17)]
    twice = next(beginning for beginning in beginnings if beginnings.count(beginning) > 1)

    assert f"got {beginnings.count(twice)} that match" in refused(store, f"weights/{twice}")


def test_a_lost_ancestor_has_no_date_and_no_parents(place: Place, store: Store) -> None:
    raw = build(store, "raw")
    dataset = build(store, "dataset", raw)
    weights = build(store, "weights", dataset)
    place.lose(dataset)

    [found] = find_lineage(store, str(weights)).made_from

    assert (found.ref, found.at) == (dataset, None)


def test_a_damaged_manifest_is_reported(place: Place, store: Store) -> None:
    weights = build(store, "weights")
    flip_a_bit(place, f"{weights}/manifest.json")

    assert refused(store, str(weights)) == (
        f"{weights}: its manifest is lost or damaged; the next run that needs it rebuilds it"
    )


def test_reading_a_lineage_changes_nothing(place: Place, store: Store) -> None:
    weights = build(store, "weights", build(store, "dataset"))
    before = place.all()

    find_lineage(store, str(weights))

    assert place.all() == before
