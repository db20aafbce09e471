"""The stages: for each artifact, all that its version follows from, and how it is built.

What a `build` does beside calling one function with folders, whose code is part of the key, must not change a byte.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from pydantic import JsonValue

from tasks.core.config import Normalization, Settings
from tasks.core.data.checks import build_data_checks
from tasks.core.data.dataset import build_dataset
from tasks.core.data.sources import ARCHIVE
from tasks.core.evaluation.evaluate import BATCH_SIZE, build_per_class, build_predictions
from tasks.core.models.factory import model_code_digests
from tasks.core.promotion_gate import Verdict
from tasks.core.recipes import Recipe
from tasks.core.reports import html, report
from tasks.core.reports.provenance import report_facts
from tasks.core.runtime.core_code import code_digests
from tasks.core.runtime.device import (
    choose_hardware,
    describe_device,
    is_compiled,
    layout_for,
    precision_for,
    short_name,
    threads,
)
from tasks.core.runtime.device_lock import device_lock, lock_names
from tasks.core.runtime.environment import library_version, who
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Key, Log, Stage
from tasks.core.training.monitor import ProgressCallback, monitoring
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Training


def training_of(settings: Settings) -> Training:
    """What settings ask to be trained, by a network and on hardware that are here; else InputError."""
    hardware = choose_hardware(settings.device, settings.devices, settings.deterministic)
    recipe = settings.resolve_recipe()
    model_code_digests(recipe.model)  # as it is now, which is what is imported
    return Training(recipe, settings.seed, hardware, settings.validation)


def dataset_stage(store: Store, raw: ArtifactRef, normalization: Normalization) -> Stage:
    """Arrays follow from the archive and the normalization that they carry along."""

    def build(folder: Path, _: Log) -> None:
        build_dataset(folder, store.open(raw) / ARCHIVE, normalization)

    settings = {"normalization": normalization.model_dump(mode="json")}
    return Stage(_key("dataset", [raw], build_dataset, settings=settings), build, (raw,), task="normalize")


def data_checks_stage(store: Store, dataset: ArtifactRef) -> Stage:
    """Data checks follow from the images and labels alone, whatever number of threads looks for duplicates."""

    def build(folder: Path, _: Log) -> None:
        build_data_checks(folder, store.open(dataset), key.inputs)

    key = _key("data_checks", [dataset], build_data_checks, environment=_versions("numpy", "pyarrow"))
    return Stage(key, build, (dataset,), task="normalize (data checks)")


def weights_stage(
    store: Store, dataset: ArtifactRef, training: Training, show_progress: ProgressCallback | None = None
) -> Stage:
    """Weights follow from the images, the recipe, the seed and the arithmetic of the device."""
    recipe, hardware = training.recipe, training.hardware

    def build(folder: Path, log: Log) -> None:
        holder = f"run {store.run} of {who()}"
        devices = lock_names(hardware.device, hardware.count)
        with device_lock(devices, holder, log), monitoring(log, store.unfinished(key), show_progress) as watch:
            build_weights(folder, store.open(dataset), training, watch)

    key = _key(
        "weights",
        [dataset],
        build_weights,
        settings={
            "recipe": recipe.model_dump(mode="json"),
            "seed": training.seed,
            "validation": training.validation,
        },
        code=model_code_digests(recipe.model),
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
        build_predictions(folder, store.open(dataset), store.open(weights), recipe, device, key.inputs, log)

    key = _key(
        "predictions",
        [dataset, weights],
        build_predictions,
        settings={"model": recipe.model, "test_augmentation": recipe.test_augmentation},
        code=model_code_digests(recipe.model),
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
        build_per_class(folder, store.open(predictions), key.inputs)

    key = _key("per_class", [predictions], build_per_class, environment=_versions("numpy", "pyarrow", "pydantic"))
    return Stage(key, build, (predictions,), task="evaluate (per class)")


def report_stage(store: Store, artifacts: Mapping[str, ArtifactRef], verdict: Verdict, pinned: bool) -> Stage:
    """The report follows from the tables and images it shows, and from the facts it quotes."""
    inputs = tuple(artifacts[name] for name in ("dataset", "data_checks", "weights", "predictions", "per_class"))
    facts = report_facts(store, artifacts, promoted=verdict.promoted, verdict=verdict.reason, pinned=pinned)

    def build(folder: Path, _: Log) -> None:
        report.build_report(folder, facts, {ref.name: store.open(ref) for ref in inputs})

    key = _key(
        "report",
        inputs,
        report.build_report,
        settings={"facts": facts.model_dump(mode="json")},
        code=html.digests(*report.PAGE),
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
