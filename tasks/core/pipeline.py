"""The pipeline: every stage declared once.

A stage names the artifact that it builds, the artifacts that it needs, the library function that builds it, and all
else that its version depends on. The flow, `--explain`, `cifar show`, the report's lineage and the tests read STAGES.
Heavy modules are imported where a stage is built, so that reading the declaration stays fast.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from tasks.core.config import Normalization, StageName
from tasks.core.runtime.core_code import code_digests
from tasks.core.runtime.environment import library_version
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Build, Key

if TYPE_CHECKING:
    from tasks.core.data.sources import Source
    from tasks.core.promotion_gate import Verdict
    from tasks.core.reports.provenance import Facts
    from tasks.core.training.monitor import ProgressCallback
    from tasks.core.training.trainer import Training

Values = dict[str, JsonValue]


@dataclass(frozen=True)
class Plan:
    """What one run is asked to do: its settings, resolved on this machine.

    `fallback` is the source where the first one cannot be fetched; `is_pinned` if the user gave a checksum.
    """

    source: "Source"
    training: "Training"
    fallback: "Source | None" = None
    is_pinned: bool = False
    normalization: Normalization = field(default_factory=Normalization)

    @property
    def device_name(self) -> str:
        from tasks.core.runtime.device import describe_device

        return describe_device(self.training.hardware.device)


@dataclass(frozen=True)
class Step:
    """A stage in one run: the plan, the store, and the artifacts that the run has so far."""

    plan: Plan
    store: Store
    artifacts: Mapping[str, ArtifactRef]
    verdict: "Verdict | None" = None
    on_progress: "ProgressCallback | None" = None

    def payload(self, artifact: str) -> Path:
        """The folder of an input's checked files."""
        return self.store.open(self.artifacts[artifact])

    def payloads(self, artifacts: Iterable[str]) -> dict[str, Path]:
        return {artifact: self.payload(artifact) for artifact in artifacts}

    @cached_property
    def report_facts(self) -> "Facts":
        from tasks.core.reports.provenance import report_facts

        assert self.verdict is not None
        tasks = {stage.artifact: stage.task for stage in STAGES.values() if stage.artifact != "report"}
        promoted, reason = self.verdict.is_promoted, self.verdict.reason
        return report_facts(self.store, self.artifacts, tasks, promoted, reason, pinned=self.plan.is_pinned)


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    `builder` is `module:function`. Its code and all library code that it reaches count for the version, as do
    `settings`, `environment`, further `code` and the versions of `libraries`. `fill` only calls the builder.
    """

    artifact: str
    task: StageName
    needs: tuple[str, ...]
    builder: str | None
    fill: Callable[[Any, Path, Step, Key], None]
    settings: Callable[[Step], Values] = lambda _: {}
    environment: Callable[[Step], Values] = lambda _: {}
    libraries: tuple[str, ...] = ()
    code: Callable[[Step], Mapping[str, str]] = lambda _: {}

    def build(self, step: Step) -> Build:
        """The version that a step asks for, and how to fill it."""
        builder: Any = self.builder and resolve_name(self.builder)
        inputs = tuple(step.artifacts[name] for name in self.needs)
        key = Key(
            name=self.artifact,
            inputs={ref.name: ref.sha256 for ref in inputs},
            settings=self.settings(step),
            code={**(code_digests(builder) if builder else {}), **self.code(step)},
            environment={**self.environment(step), **{name: library_version(name) for name in self.libraries}},
        )
        device = step.plan.device_name if self.code is _model_code else "cpu"
        return Build(key, lambda folder: self.fill(builder, folder, step, key), inputs, device, self.task, self.label)

    @property
    def label(self) -> str:
        """The task in log lines; with the artifact's name where it is not the task's first one."""
        is_first = next(stage for stage in STAGES.values() if stage.task == self.task) is self
        return self.task if is_first else f"{self.task} ({self.artifact.replace('_', ' ')})"


def _arithmetic(training: "Training", batch_size: int) -> Values:
    """What changes the last bits of a result."""
    from tasks.core.runtime.device import thread_count

    device = training.hardware.device
    return {"device": device.type, "threads": thread_count(device, batch_size)}


def _model_code(step: Step) -> dict[str, str]:
    from tasks.core.models.factory import model_code_digests

    return model_code_digests(step.plan.training.recipe.model)


def _training_settings(step: Step) -> Values:
    training = step.plan.training
    recipe = training.recipe.model_dump(mode="json")
    return {"recipe": recipe, "seed": training.seed, "validation": training.validation}


def _training_environment(step: Step) -> Values:
    from tasks.core.runtime.device import is_compiled, precision_for, short_name

    recipe, hardware = step.plan.training.recipe, step.plan.training.hardware
    return {
        **_arithmetic(step.plan.training, recipe.batch_size),
        "precision": short_name(precision_for(hardware.device, recipe.precision)),
        "compiled": is_compiled(hardware, recipe.compile),
        "devices": hardware.count,
        "deterministic": hardware.deterministic,
    }


def _prediction_environment(step: Step) -> Values:
    from tasks.core.evaluation.evaluate import BATCH_SIZE
    from tasks.core.runtime.device import layout_for, short_name

    training = step.plan.training
    layout = layout_for(training.hardware.device, training.recipe.precision)
    return {**_arithmetic(training, BATCH_SIZE), "layout": short_name(layout)}


def _report_code(_: Step) -> dict[str, str]:
    from tasks.core.reports import html, report

    return html.digests(*report.PAGE)


def _fill_dataset(build_dataset: Callable[..., None], folder: Path, step: Step, _: Key) -> None:
    from tasks.core.data.sources import ARCHIVE

    build_dataset(folder, step.payload("raw") / ARCHIVE, step.plan.normalization)


def _fill_weights(build_weights: Callable[..., None], folder: Path, step: Step, key: Key) -> None:
    from tasks.core.runtime.device_lock import device_lock, lock_names
    from tasks.core.training.checkpoint import Checkpoint
    from tasks.core.training.monitor import Monitor

    hardware = step.plan.training.hardware
    devices, work_folder = lock_names(hardware.device, hardware.count), step.store.work_folder(key)
    with device_lock(devices):
        monitor = Monitor(step.on_progress, Checkpoint(work_folder))
        build_weights(folder, step.payload("dataset"), step.plan.training, monitor)


def _fill_predictions(build_predictions: Callable[..., None], folder: Path, step: Step, key: Key) -> None:
    recipe, device = step.plan.training.recipe, step.plan.training.hardware.device
    build_predictions(folder, step.payload("dataset"), step.payload("weights"), recipe, device, key.inputs)


_DECLARED = (
    Stage(
        artifact="raw",
        task="download",
        needs=(),
        builder=None,
        fill=lambda _, folder, step, __: step.plan.source.fetch(folder, step.store.downloads),
        settings=lambda step: dict(step.plan.source.settings),
        environment=lambda step: dict(step.plan.source.environment),
        code=lambda step: step.plan.source.code,
    ),
    Stage(
        artifact="dataset",
        task="normalize",
        needs=("raw",),
        builder="tasks.core.data.dataset:build_dataset",
        fill=_fill_dataset,
        settings=lambda step: {"normalization": step.plan.normalization.model_dump(mode="json")},
    ),
    Stage(
        artifact="data_checks",
        task="normalize",
        needs=("dataset",),
        builder="tasks.core.data.checks:build_data_checks",
        fill=lambda build, folder, step, key: build(folder, step.payload("dataset"), key.inputs),
        libraries=("numpy", "pyarrow"),
    ),
    Stage(
        artifact="weights",
        task="train",
        needs=("dataset",),
        builder="tasks.core.training.train:build_weights",
        fill=_fill_weights,
        settings=_training_settings,
        environment=_training_environment,
        libraries=("torch", "torchvision", "pyarrow", "safetensors"),
        code=_model_code,
    ),
    Stage(
        artifact="predictions",
        task="evaluate",
        needs=("dataset", "weights"),
        builder="tasks.core.evaluation.evaluate:build_predictions",
        fill=_fill_predictions,
        settings=lambda step: step.plan.training.recipe.model_dump(include={"model", "test_augmentation"}),
        environment=_prediction_environment,
        libraries=("torch", "torchvision", "pyarrow"),
        code=_model_code,
    ),
    Stage(
        artifact="per_class",
        task="evaluate",
        needs=("predictions",),
        builder="tasks.core.evaluation.evaluate:build_per_class",
        fill=lambda build, folder, step, key: build(folder, step.payload("predictions"), key.inputs),
        libraries=("numpy", "pyarrow", "pydantic"),
    ),
    Stage(
        artifact="report",
        task="report",
        needs=("dataset", "data_checks", "weights", "predictions", "per_class"),
        builder="tasks.core.reports.report:build_report",
        fill=lambda build, folder, step, key: build(folder, step.report_facts, step.payloads(key.inputs)),
        settings=lambda step: {"facts": step.report_facts.model_dump(mode="json")},
        libraries=("matplotlib", "jinja2", "pillow", "numpy", "pandas"),
        code=_report_code,
    ),
)
STAGES: dict[str, Stage] = {stage.artifact: stage for stage in _DECLARED}
