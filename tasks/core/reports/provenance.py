"""The provenance that a report shows: stages, versions, and the command that reproduces the numbers."""

import shlex
from collections.abc import Mapping

from pydantic import JsonValue

from tasks.core.data.identity import Identity
from tasks.core.frozen_model import FrozenModel
from tasks.core.models.weights import load_lineage
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Manifest


class StageFact(FrozenModel):
    """One artifact of the run: its stage, its inputs, and when it was built."""

    stage: str
    artifact: str
    inputs: tuple[str, ...] = ()
    seconds: float
    built_at: str


class Facts(FrozenModel):
    """Everything that a report shows besides its tables and images."""

    recipe: dict[str, JsonValue]
    seed: int
    pinned: bool
    device: str
    versions: dict[str, str]
    stages: tuple[StageFact, ...]
    command: str
    promoted: bool
    verdict: str


def report_facts(
    store: Store,
    artifacts: Mapping[str, ArtifactRef],
    tasks: Mapping[str, str],
    promoted: bool,
    verdict: str,
    *,
    pinned: bool,
) -> Facts:
    """Collect the facts from the manifests that first held these bytes, so that they never change.

    `tasks` names the task of each artifact, in the order of the pipeline.
    """
    manifests = {name: first for name in tasks if (first := store.first_with_same_bytes(artifacts[name]))}
    lineage = load_lineage(store.open(artifacts["weights"]))
    return Facts(
        recipe=lineage.recipe.model_dump(mode="json"),
        seed=lineage.seed,
        pinned=pinned,
        device=manifests["weights"].made.device,
        versions=manifests["weights"].made.versions,
        stages=tuple(
            StageFact(
                stage=tasks[name],
                artifact=str(manifest.ref),
                inputs=tuple(manifest.key.inputs),
                seconds=manifest.made.seconds,
                built_at=manifest.made.at,
            )
            for name, manifest in manifests.items()
        ),
        command=reproduction_command(lineage.recipe, lineage.seed, lineage.dataset, manifests["weights"]),
        promoted=promoted,
        verdict=verdict,
    )


def reproduction_command(recipe: Recipe, seed: int, dataset: Identity, weights: Manifest) -> str:
    """Return the command that trains the same weights; an archive is named by its digest, not by its path."""
    environment, defaults = weights.key.environment, RECIPES[recipe.name].model_dump(mode="json")
    options: dict[str, JsonValue] = {
        "source": {"generated": "synthetic", "archive": "ARCHIVE"}.get(dataset.kind),
        "sha256": dataset.sha256 if dataset.kind == "archive" else None,
        "recipe": recipe.name,
        **{name: value for name, value in recipe.model_dump(mode="json").items() if defaults[name] != value},
        "seed": seed,
        "device": environment["device"],
        "validation": weights.key.settings["validation"] or None,
        "devices": environment["devices"] if environment["devices"] != 1 else None,
        "deterministic": environment["deterministic"] or None,
    }
    words = ["python", "flows/cifar_flow.py"]
    for name, value in options.items():
        if value is None:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return shlex.join(words)
