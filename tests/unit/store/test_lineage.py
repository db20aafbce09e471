"""The lineage of a version: what it was made from, what was made from it, and the runs that have it."""

from dataclasses import replace

import pytest
from places import BUCKET_BY_SOAK, Place, flip_a_bit
from tiny_artifacts import finished_run, quiet, stage_of

from tasks.core.errors import InputError
from tasks.core.store import ArtifactRef, Store
from tasks.core.store.lineage import find_lineage
from tasks.core.store.runs import recording_run


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def made(store: Store, name: str, *inputs: ArtifactRef, word: str = "", refresh: bool = False) -> ArtifactRef:
    """An artifact of a few bytes that was made from others."""
    key = {"inputs": {ref.name: ref.sha256 for ref in inputs}, "settings": {"word": word}}
    stage = replace(stage_of({"file": f"{name} {word}".encode()}, name, **key), inputs=inputs)
    return store.get_or_create(stage, quiet, refresh=refresh).ref


def above(store: Store, ref: ArtifactRef) -> list[tuple[int, str]]:
    return [(each.depth, str(each.ref)) for each in find_lineage(store, str(ref)).made_from]


def below(store: Store, ref: ArtifactRef) -> set[str]:
    return {str(each) for each in find_lineage(store, str(ref)).used_for}


def refused(store: Store, name: str) -> str:
    with pytest.raises(InputError) as raised:
        find_lineage(store, name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_version_is_made_from_its_inputs_and_theirs_up_to_the_archive(store: Store) -> None:
    raw = made(store, "raw")
    dataset = made(store, "dataset", raw)
    weights = made(store, "weights", dataset)
    predictions = made(store, "predictions", dataset, weights)

    assert above(store, raw) == []
    assert above(store, weights) == [(1, str(dataset)), (2, str(raw))]
    assert above(store, predictions) == [
        (1, str(dataset)),
        (2, str(raw)),
        (1, str(weights)),
        (2, str(dataset)),
        (3, str(raw)),
    ]


@BUCKET_BY_SOAK
def test_a_version_is_used_for_what_was_made_directly_from_it(store: Store) -> None:
    raw = made(store, "raw")
    dataset = made(store, "dataset", raw)
    weights = [made(store, "weights", dataset, word=word) for word in ("one", "two")]
    predictions = made(store, "predictions", dataset, weights[0])

    assert below(store, raw) == {str(dataset)}
    assert below(store, dataset) == {str(weights[0]), str(weights[1]), str(predictions)}
    assert below(store, weights[0]) == {str(predictions)}
    assert below(store, weights[1]) == set()


def test_a_second_attempt_with_the_same_bytes_has_a_lineage_of_its_own(store: Store) -> None:
    dataset = made(store, "dataset")
    first = made(store, "weights", dataset)
    predictions = made(store, "predictions", first)
    second = made(store, "weights", dataset, refresh=True)

    assert second.sha256 == first.sha256
    assert made(store, "predictions", second) == predictions
    assert below(store, first) == {str(predictions)}
    assert below(store, second) == set()
    assert above(store, predictions) == [(1, str(first)), (2, str(dataset))]


@BUCKET_BY_SOAK
def test_a_version_knows_every_run_that_has_it(place: Place, store: Store) -> None:
    one, two = (finished_run(place.location, word).record for word in ("one", "two"))

    assert find_lineage(store, str(one.artifacts["weights"])).runs == (one.run,)
    assert set(find_lineage(store, str(one.artifacts["dataset"])).runs) == {one.run, two.run}


@BUCKET_BY_SOAK
def test_a_version_that_no_run_keeps_is_in_none(store: Store) -> None:
    assert find_lineage(store, str(made(store, "weights"))).runs == ()


def test_a_run_in_progress_has_its_versions_already(store: Store) -> None:
    with recording_run(store, {}, {}, quiet) as run:
        run.keep(made(run.store, "weights"))

        lineage = find_lineage(store, str(run.record.artifacts["weights"]))

        assert lineage.runs == (run.record.run,)
        assert lineage.manifest.made.run == run.record.run


def test_the_beginning_of_a_version_is_enough_where_only_one_begins_so(store: Store) -> None:
    weights = made(store, "weights")

    assert find_lineage(store, f"weights/{weights.version[:1]}").manifest.ref == weights


@pytest.mark.parametrize(
    "name", ["weights/", "weights/zzz", "/", "nothing/0", "weights", "runs/2", "/weights", "../store"]
)
@BUCKET_BY_SOAK
def test_a_name_of_no_version_is_refused_on_one_line(store: Store, name: str) -> None:
    made(store, "weights")

    assert refused(store, name) == f"{name}: expected NAME/VERSION of one version in the store, got 0 that begin so"


@BUCKET_BY_SOAK
def test_an_ambiguous_beginning_is_refused_with_how_many_it_may_mean(store: Store) -> None:
    beginnings = [made(store, "weights", word=str(number)).version[0] for number in range(17)]
    twice = next(beginning for beginning in beginnings if beginnings.count(beginning) > 1)

    assert f"got {beginnings.count(twice)} that begin so" in refused(store, f"weights/{twice}")


def test_a_lost_ancestor_is_told_without_a_date_and_ends_its_line(place: Place, store: Store) -> None:
    raw = made(store, "raw")
    dataset = made(store, "dataset", raw)
    weights = made(store, "weights", dataset)
    place.lose(dataset)

    [found] = find_lineage(store, str(weights)).made_from

    assert (found.ref, found.at) == (dataset, None)


def test_a_version_whose_manifest_is_damaged_says_so(place: Place, store: Store) -> None:
    weights = made(store, "weights")
    flip_a_bit(place, f"{weights}/manifest.json")

    assert refused(store, str(weights)) == (
        f"{weights}: its manifest is lost or damaged; the next run that needs it heals it"
    )


def test_looking_at_a_lineage_changes_nothing(place: Place, store: Store) -> None:
    weights = made(store, "weights", made(store, "dataset"))
    before = place.all()

    find_lineage(store, str(weights))

    assert place.all() == before
