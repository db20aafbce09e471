"""In what the making of several runs differs: told from the keys of their weights and predictions."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from tasks.core.frozen_model import FrozenModel
from tasks.core.reports.compare.runs import ComparedRun
from tasks.core.runtime.files import canonical_json
from tasks.core.store.artifact import Key, ingredients

DIGEST = 12  # hex digits that are shown

Ingredients = Mapping[tuple[str, str], JsonValue]


class Setting(FrozenModel):
    """A setting, or a part of the environment, with its value in each run; None where a run knows no such thing."""

    name: str
    values: tuple[JsonValue, ...]


class Differences(FrozenModel):
    """What differs between the runs: settings and environment by value, code by the names of its symbols."""

    settings: tuple[Setting, ...]
    code: tuple[str, ...]
    same_weights: bool


def differences(runs: Sequence[ComparedRun]) -> Differences:
    """What went otherwise into the weights, and then what was otherwise when they were evaluated."""
    keys = [run.weights.key for run in runs]
    trained, evaluated = list(_settings(keys)), list(_settings([run.evaluated.key for run in runs], ("environment",)))
    known = {(setting.name, setting.values) for setting in trained}
    return Differences(
        settings=(
            *trained,
            *(
                Setting(name=f"evaluate.{setting.name}", values=setting.values)
                for setting in evaluated
                if (setting.name, setting.values) not in known
            ),
        ),
        code=tuple(dict.fromkeys([*_code(keys), *_code([run.evaluated.key for run in runs])])),
        same_weights=len({run.weights.sha256 for run in runs}) == 1,
    )


def _settings(keys: Sequence[Key], kinds: Sequence[str] = ("setting", "input", "environment")) -> Iterator[Setting]:
    """Kind by kind, so that what was chosen comes before what was found."""
    for wanted in kinds:
        for (kind, name), values in _differing(keys):
            if kind == wanted:
                shown = [value[:DIGEST] if kind == "input" and isinstance(value, str) else value for value in values]
                yield Setting(name=name, values=tuple(shown))


def _code(keys: Sequence[Key]) -> Iterator[str]:
    return (name for (kind, name), _ in _differing(keys) if kind == "code")


def _differing(keys: Sequence[Key]) -> Iterator[tuple[tuple[str, str], list[JsonValue]]]:
    found: list[Ingredients] = [ingredients(key) for key in keys]
    for ingredient in dict.fromkeys(name for each in found for name in each):
        values = [each.get(ingredient) for each in found]
        if len({canonical_json(value) for value in values}) > 1:
            yield ingredient, values
