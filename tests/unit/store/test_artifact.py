"""Keys: which ingredients change the version, and the reason for a rebuild."""

from pathlib import Path
from typing import Any

import pytest
from log_lines import logged_lines
from tiny_artifacts import build_of

from tasks.core.store import Store, open_store
from tasks.core.store.artifact import Build, Key, explain_miss

PAYLOAD = {"a.bin": b"the bytes of a"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize(
    "other",
    [
        {"name": "y"},
        {"inputs": {"raw": "ab"}},
        {"settings": {"epochs": 3}},
        {"settings": {"epochs": 2.0}},
        {"code": {"tasks/core/models/tutorial_net.py: Net": "cd"}},
        {"environment": {"torch": "2.15.0"}},
        {"attempt": 1},
    ],
)
def test_every_ingredient_of_the_key_makes_another_version(other: dict[str, Any]) -> None:
    assert (
        Key(**{"name": "x", "settings": {"epochs": 2}} | other).version != Key(name="x", settings={"epochs": 2}).version
    )


def test_the_order_of_the_ingredients_does_not_matter() -> None:
    assert Key(name="x", settings={"a": 1, "b": 2}).version == Key(name="x", settings={"b": 2, "a": 1}).version


BEFORE: dict[str, Any] = {
    "inputs": {"dataset": "3fa9"},
    "settings": {"recipe": {"epochs": 2, "momentum": 0.9}, "seed": 1},
    "code": {"tasks/core/models/tutorial_net.py: Net": "aa", "tasks/core/training.py: train": "bb"},
    "environment": {"torch": "2.11.0", "threads": 2},
}


def logged_reason(store: Store, **ingredients: Any) -> str:
    """The logged reason for building x from these ingredients."""
    with logged_lines() as lines:
        store.get_or_create(build_of(PAYLOAD, **ingredients))
    [line] = lines
    return line.removeprefix("x: ")


def changed(ingredient: str, **values: Any) -> dict[str, Any]:
    return BEFORE | {ingredient: BEFORE[ingredient] | values}


@pytest.mark.parametrize(
    ("ingredients", "words"),
    [
        (changed("settings", recipe={"epochs": 3, "momentum": 0.9}), "recipe.epochs changed from 2 to 3"),
        (changed("settings", seed=7), "seed changed from 1 to 7"),
        (changed("settings", warmup=5), "warmup added"),
        (BEFORE | {"settings": {"seed": 1}}, "recipe.epochs removed, recipe.momentum removed"),
        (
            changed("code", **{"tasks/core/models/tutorial_net.py: Net": "cc"}),
            "code tasks/core/models/tutorial_net.py: Net changed",
        ),
        (
            changed("code", **{"tasks/core/models/tutorial_net.py: Block": "cc"}),
            "code tasks/core/models/tutorial_net.py: Block added",
        ),
        (
            BEFORE | {"code": {"tasks/core/training.py: train": "bb"}},
            "code tasks/core/models/tutorial_net.py: Net removed",
        ),
        (changed("inputs", dataset="77b0"), "input dataset changed"),
        (changed("environment", torch="2.15.0"), "torch changed from 2.11.0 to 2.15.0"),
        (
            changed("settings", seed=2) | {"inputs": {"dataset": "77b0"}},
            "input dataset changed, seed changed from 1 to 2",
        ),
    ],
)
def test_the_rebuild_reason_names_each_difference(store: Store, ingredients: dict[str, Any], words: str) -> None:
    assert logged_reason(store, **BEFORE) == "building for the first time"

    assert logged_reason(store, **ingredients) == f"rebuilding, {words}"


def test_a_build_is_logged_by_its_task(store: Store, log: list[str]) -> None:
    build = build_of(PAYLOAD)

    store.get_or_create(Build(build.key, build.fill, task="train"))

    assert log == ["train: building for the first time"]


def test_other_artifacts_do_not_count_as_earlier_versions(store: Store) -> None:
    store.get_or_create(build_of(PAYLOAD, "y", settings={"seed": 1}))

    assert logged_reason(store, settings={"seed": 2}) == "building for the first time"


def test_the_reason_compares_with_the_most_similar_version(store: Store) -> None:
    logged_reason(store, settings={"seed": 1, "epochs": 2, "batch_size": 4})
    logged_reason(store, settings={"seed": 5, "epochs": 9, "batch_size": 64})

    assert (
        logged_reason(store, settings={"seed": 1, "epochs": 2, "batch_size": 8})
        == "rebuilding, batch_size changed from 4 to 8"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"settings": {"rate": 1}}, {"settings": {"rate": 1.0}}),
        ({"settings": {"facts": {}}}, {"settings": {}}),
        (
            {"settings": {"device": "auto"}, "environment": {"device": "cpu"}},
            {"settings": {"device": "cpu"}, "environment": {"device": "cpu"}},
        ),
    ],
    ids=["other type", "empty group", "setting named like a fact of the environment"],
)
def test_there_is_always_a_reason(before: dict[str, Any], after: dict[str, Any], store: Store) -> None:
    store.get_or_create(build_of(PAYLOAD, **before))

    assert explain_miss(Key(name="x", **after), store.manifests("x"))
