"""Opening a store, in a folder and in a bucket."""

import pytest
from places import FolderPlace, Place
from tiny_artifacts import finished_run

from tasks.core.errors import CifarFlowError, InputError
from tasks.core.store import Store, open_store
from tasks.core.store.runs import read_records


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def test_a_store_of_another_format_is_refused(place: Place, store: Store) -> None:
    place.write("store.json", b'{"format": 2}')

    with pytest.raises(InputError) as raised:
        place.open()

    location = store.storage.location
    assert str(raised.value) == f"store {location}: expected format 1, got 2; use the cifar-flow that created it"


@pytest.mark.parametrize("text", [b"", b"garbage", b"[]", b'"format"'])
def test_a_damaged_store_description_is_reported_on_one_line(place: Place, text: bytes) -> None:
    place.write("store.json", text)

    with pytest.raises(CifarFlowError) as raised:
        place.open()

    assert place.location in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_store_that_must_exist_is_not_created(place: Place) -> None:
    with pytest.raises(InputError) as raised:
        open_store(place.location, must_exist=True)

    assert place.location in str(raised.value)
    assert place.names() == []
    assert not (isinstance(place, FolderPlace) and place.root.exists())


def test_a_store_that_must_exist_is_opened_if_it_does(place: Place, store: Store) -> None:
    assert open_store(place.location, must_exist=True) == store


def test_a_store_without_its_description_is_opened(place: Place, log: list[str]) -> None:
    kept = finished_run(place.location, "one").record
    place.delete("store.json")
    log.clear()

    again = open_store(place.location, must_exist=True)

    assert log == [f"store: restored store.json, which was missing in {place.location}; check the disk"]
    assert [record.run for record in read_records(again)] == [kept.run]
    assert place.json("store.json") == {"format": 1}


@pytest.mark.parametrize("name", ["report.html", "predictions.parquet"])
def test_no_store_is_created_over_the_users_files(place: Place, name: str) -> None:
    beside = place.beside("mine")
    beside.write("README.md", b"these may be there")
    beside.open()
    beside.delete("store.json")
    beside.write(name, b"mine")

    with pytest.raises(
        InputError, match=f"got one with a {name} that does not belong to a run; give another one by --store"
    ):
        beside.open()

    assert beside.read(name) == b"mine"
