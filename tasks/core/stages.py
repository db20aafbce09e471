"""The stages: for each artifact, all that its version follows from, and how it is built.

What a `build` does beside calling one function with folders, whose code is part of the key, must not change a byte.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from pydantic import JsonValue

from tasks.core import reporting
from tasks.core.code_digest import code_digests
from tasks.core.config import Normalization, Settings
from tasks.core.data_checks import check_into
from tasks.core.dataset import normalize_into
from tasks.core.device import (
    choose_hardware,
    describe_device,
    is_compiled,
    layout_for,
    precision_for,
    short_name,
    threads,
)
from tasks.core.environment import library_version, who
from tasks.core.evaluation import BATCH_SIZE, predict_into, summarize_into
from tasks.core.facts import report_facts
from tasks.core.gate import Verdict
from tasks.core.lease import device_names, leased
from tasks.core.networks import model_code
from tasks.core.pages import rendering
from tasks.core.recipes import Recipe
from tasks.core.source import ARCHIVE
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Key, Log, Stage
from tasks.core.training.launch import train_into
from tasks.core.training.trainer import Training
from tasks.core.training.watch import ShowProgress, watching


def training_of(settings: Settings) -> Training:
    """What settings ask to be trained, by a network and on hardware that are here; else InputError."""
    hardware = choose_hardware(settings.device, settings.devices, settings.deterministic)
    recipe = settings.resolved_recipe()
    model_code(recipe.model)  # as it is now, which is what is imported
    return Training(recipe, settings.seed, hardware, settings.validation)


def dataset_stage(store: Store, raw: ArtifactRef, normalization: Normalization) -> Stage:
    """Arrays follow from the archive and the normalization that they carry along."""

    def build(folder: Path, _: Log) -> None:
        normalize_into(folder, store.open(raw) / ARCHIVE, normalization)

    settings = {"normalization": normalization.model_dump(mode="json")}
    return Stage(_key("dataset", [raw], normalize_into, settings=settings), build, (raw,), task="normalize")


def data_checks_stage(store: Store, dataset: ArtifactRef) -> Stage:
    """Data checks follow from the images and labels alone, whatever number of threads looks for duplicates."""

    def build(folder: Path, _: Log) -> None:
        check_into(folder, store.open(dataset), key.inputs)

    key = _key("data_checks", [dataset], check_into, environment=_versions("numpy", "pyarrow"))
    return Stage(key, build, (dataset,), task="normalize (data checks)")


def weights_stage(
    store: Store, dataset: ArtifactRef, training: Training, show_progress: ShowProgress | None = None
) -> Stage:
    """Weights follow from the images, the recipe, the seed and the arithmetic of the device."""
    recipe, hardware = training.recipe, training.hardware

    def build(folder: Path, log: Log) -> None:
        holder = f"run {store.run} of {who()}"
        devices = device_names(hardware.device, hardware.count)
        with leased(devices, holder, log), watching(log, store.unfinished(key), show_progress) as watch:
            train_into(folder, store.open(dataset), training, watch)

    key = _key(
        "weights",
        [dataset],
        train_into,
        settings={
            "recipe": recipe.model_dump(mode="json"),
            "seed": training.seed,
            "validation": training.validation,
        },
        code=model_code(recipe.model),
        environment={
            **_arithmetic(hardware.device, recipe.batch_size),
            "precision": short_name(precision_for(hardware.device, recipe.precision)),
            "compiled": is_compiled(hardware, recipe.compile),
            "devices": hardware.count,
            "deterministic": hardware.deterministic,
            **_versions("pyarrow", "safetensors"),
        },
    )
    return Stage(key, build, (dataset,), describe_device(hardware.device), "train")


def predictions_stage(
    store: Store, dataset: ArtifactRef, weights: ArtifactRef, recipe: Recipe, device: torch.device
) -> Stage:
    """Predictions follow from the weights, the network they are for, and the images."""

    def build(folder: Path, log: Log) -> None:
        predict_into(folder, store.open(dataset), store.open(weights), recipe, device, key.inputs, log)

    key = _key(
        "predictions",
        [dataset, weights],
        predict_into,
        settings={"model": recipe.model, "test_augmentation": recipe.test_augmentation},
        code=model_code(recipe.model),
        environment={
            **_arithmetic(device, BATCH_SIZE),
            "layout": short_name(layout_for(device, recipe.precision)),
            **_versions("pyarrow"),
        },
    )
    return Stage(key, build, (dataset, weights), describe_device(device), "evaluate")


def per_class_stage(store: Store, predictions: ArtifactRef) -> Stage:
    """The per-class table and the scores follow from the predictions alone."""

    def build(folder: Path, _: Log) -> None:
        summarize_into(folder, store.open(predictions), key.inputs)

    key = _key("per_class", [predictions], summarize_into, environment=_versions("numpy", "pyarrow", "pydantic"))
    return Stage(key, build, (predictions,), task="evaluate (per class)")


def report_stage(store: Store, artifacts: Mapping[str, ArtifactRef], verdict: Verdict, pinned: bool) -> Stage:
    """The report follows from the tables and images it shows, and from the facts it quotes."""
    inputs = tuple(artifacts[name] for name in ("dataset", "data_checks", "weights", "predictions", "per_class"))
    facts = report_facts(store, artifacts, promoted=verdict.promoted, verdict=verdict.reason, pinned=pinned)

    def build(folder: Path, _: Log) -> None:
        reporting.report_into(folder, facts, {ref.name: store.open(ref) for ref in inputs})

    key = _key(
        "report",
        inputs,
        reporting.report_into,
        settings={"facts": facts.model_dump(mode="json")},
        code=rendering.digests(*reporting.PAGE),
        environment=_versions("matplotlib", "jinja2", "pillow", "numpy", "pandas"),
    )
    return Stage(key, build, inputs, task="report")


def _key(
    name: str,
    inputs: Sequence[ArtifactRef],
    builder: Callable[..., object],
    *,
    settings: Mapping[str, JsonValue] | None = None,
    code: Mapping[str, str] | None = None,
    environment: Mapping[str, JsonValue] | None = None,
) -> Key:
    return Key(
        name=name,
        inputs={ref.name: ref.sha256 for ref in inputs},
        settings=dict(settings or {}),
        code=code_digests(builder) | dict(code or {}),
        environment=dict(environment or {}),
    )


def _versions(*libraries: str) -> dict[str, JsonValue]:
    return {name: library_version(name) for name in libraries}


def _arithmetic(device: torch.device, batch_size: int) -> dict[str, JsonValue]:
    """What changes the last bits of a result."""
    return {**_versions("torch", "torchvision"), "device": device.type, "threads": threads(device, batch_size)}
