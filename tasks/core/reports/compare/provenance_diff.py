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
    training_keys = [run.weights_manifest.key for run in runs]
    evaluation_keys = [run.predictions_manifest.key for run in runs]
    training = list(_differing_settings(training_keys, "setting", "input", "environment"))
    evaluation = (each for each in _differing_settings(evaluation_keys, "environment") if each not in training)
    return Differences(
        settings=(*training, *(Setting(name=f"evaluate.{each.name}", values=each.values) for each in evaluation)),
        code=tuple(dict.fromkeys([*_differing_code(training_keys), *_differing_code(evaluation_keys)])),
        same_weights=len({run.weights_manifest.sha256 for run in runs}) == 1,
    )


def _differing_settings(keys: Sequence[Key], *kinds: str) -> Iterator[Setting]:
    """Kind by kind: what the user chose comes first."""
    for wanted in kinds:
        for kind, name, values in _differing_ingredients(keys):
            if kind == wanted:
                short = [
                    value[:DIGEST_DIGITS] if kind == "input" and isinstance(value, str) else value for value in values
                ]
                yield Setting(name=name, values=tuple(short))


def _differing_code(keys: Sequence[Key]) -> Iterator[str]:
    return (name for kind, name, _ in _differing_ingredients(keys) if kind == "code")


def _differing_ingredients(keys: Sequence[Key]) -> Iterator[tuple[str, str, list[JsonValue]]]:
    """The kind, name and values of each ingredient that is not the same in all keys."""
    runs = [ingredients(key) for key in keys]
    for kind, name in dict.fromkeys(ingredient for run in runs for ingredient in run):
        values = [run.get((kind, name)) for run in runs]
        if len({canonical_json(value) for value in values}) > 1:
            yield kind, name, values
