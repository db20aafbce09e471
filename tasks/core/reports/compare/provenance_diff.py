"""The differences in provenance between runs: settings, environment and code, from the keys of their artifacts."""

from collections.abc import Iterator, Sequence

from pydantic import JsonValue

from tasks.core.frozen_model import FrozenModel
from tasks.core.reports.compare.runs import ComparedRun
from tasks.core.runtime.files import canonical_json
from tasks.core.store.artifact import Key, ingredients

DIGEST_DIGITS = 12


class Setting(FrozenModel):
    """A setting, input or part of the environment, with its value in each run; None if a run does not have it."""

    name: str
    values: tuple[JsonValue, ...]


class Differences(FrozenModel):
    """The differences between runs: settings by value, code by the names of its symbols."""

    settings: tuple[Setting, ...]
    code: tuple[str, ...]
    same_weights: bool


def find_differences(runs: Sequence[ComparedRun]) -> Differences:
    """Find the differences in training, then those in the environment and code of the evaluation."""
    training = list(_differing_ingredients([run.weights_manifest.key for run in runs]))
    evaluation = list(_differing_ingredients([run.predictions_manifest.key for run in runs]))
    settings = [
        Setting(name=name, values=values)
        for wanted in ("setting", "input", "environment")
        for kind, name, values in training
        if kind == wanted
    ]
    settings += [
        Setting(name=f"evaluate.{name}", values=values)
        for kind, name, values in evaluation
        if kind == "environment" and (kind, name, values) not in training
    ]
    return Differences(
        settings=tuple(settings),
        code=tuple(dict.fromkeys(name for kind, name, _ in (*training, *evaluation) if kind == "code")),
        same_weights=len({run.weights_manifest.sha256 for run in runs}) == 1,
    )


def _differing_ingredients(keys: Sequence[Key]) -> Iterator[tuple[str, str, tuple[JsonValue, ...]]]:
    """The kind, name and values of each ingredient that is not the same in all keys; digests are shortened."""
    runs = [ingredients(key) for key in keys]
    for kind, name in dict.fromkeys(ingredient for run in runs for ingredient in run):
        values = [run.get((kind, name)) for run in runs]
        if len({canonical_json(value) for value in values}) > 1:
            yield (
                kind,
                name,
                tuple(str(value)[:DIGEST_DIGITS] if kind == "input" and value else value for value in values),
            )
