"""What a report says beside its tables, and the command that makes its numbers again."""

import shlex
from collections.abc import Mapping

from pydantic import JsonValue

from tasks.core.data.identity import Identity
from tasks.core.frozen_model import FrozenModel
from tasks.core.models.weights import load_lineage
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Manifest

STAGE_OF = {
    "raw": "download",
    "dataset": "normalize",
    "data_checks": "normalize",
    "weights": "train",
    "predictions": "evaluate",
    "per_class": "evaluate",
}


class StageFact(FrozenModel):
    """One stage of the run: what it made or reused and from what, how long that took and when."""

    stage: str
    artifact: str
    inputs: tuple[str, ...] = ()
    seconds: float
    made_at: str


class Facts(FrozenModel):
    """All that the report shows and that is not in the tables."""

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
    store: Store, artifacts: Mapping[str, ArtifactRef], *, promoted: bool, verdict: str, pinned: bool
) -> Facts:
    """Quoted from when these bytes were first made, so that it stays true."""
    firsts = {name: store.first_with_same_bytes(artifacts[name]) for name in STAGE_OF}
    made = {name: manifest for name, manifest in firsts.items() if manifest}
    lineage = load_lineage(store.open(artifacts["weights"]))
    return Facts(
        recipe=lineage.recipe.model_dump(mode="json"),
        seed=lineage.seed,
        pinned=pinned,
        device=made["weights"].made.device,
        versions=made["weights"].made.versions,
        stages=tuple(
            StageFact(
                stage=STAGE_OF[name],
                artifact=str(manifest.ref),
                inputs=tuple(manifest.key.inputs),
                seconds=manifest.made.seconds,
                made_at=manifest.made.at,
            )
            for name, manifest in made.items()
        ),
        command=command_of(lineage.recipe, lineage.seed, lineage.dataset, made["weights"]),
        promoted=promoted,
        verdict=verdict,
    )


def command_of(recipe: Recipe, seed: int, dataset: Identity, weights: Manifest) -> str:
    """The command that makes the same weights; an archive of one's own is named by its digest, and not by its place."""
    found: dict[str, JsonValue] = {}
    if dataset.kind == "generated":
        found["source"] = "synthetic"
    elif dataset.kind == "archive":
        found |= {"source": "ARCHIVE", "sha256": dataset.sha256}
    usual = RECIPES[recipe.name].model_dump(mode="json")
    found["recipe"] = recipe.name
    found |= {name: value for name, value in recipe.model_dump(mode="json").items() if usual[name] != value}
    environment = weights.key.environment
    found |= {"seed": seed, "device": environment["device"]}
    if validation := weights.key.settings["validation"]:
        found["validation"] = validation
    if environment["devices"] != 1:
        found["devices"] = environment["devices"]
    words = ["python", "flows/cifar_flow.py"]
    if environment["deterministic"]:
        found["deterministic"] = True
    for name, value in found.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return shlex.join(words)
