"""One run of the pipeline: settings become a plan, and stages build artifacts or find them in the store."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from tasks.core.config import Settings, store_location
from tasks.core.data.downloader import SourceUnavailable, TransferBroken
from tasks.core.data.sources import ARCHIVE, find_source
from tasks.core.models.factory import model_code_digests
from tasks.core.pipeline import STAGES, Plan, Step
from tasks.core.promotion_gate import Verdict
from tasks.core.runtime.device import choose_hardware
from tasks.core.runtime.logs import logger
from tasks.core.store import open_store
from tasks.core.store.artifact import ArtifactRef, Outcome, content_digest
from tasks.core.store.runs import Run, recording_run
from tasks.core.training.monitor import ProgressCallback
from tasks.core.training.trainer import Training


def plan_run(settings: Settings) -> Plan:
    """Resolve settings: InputError if the device, the network or the archive is not there."""
    hardware = choose_hardware(settings.device, settings.devices, settings.deterministic)
    recipe = settings.resolve_recipe()
    model_code_digests(recipe.model)  # of the code as it is imported now, whatever becomes of its files
    return Plan(
        source=find_source(settings.source, settings.sha256),
        fallback=find_source(settings.offline_fallback, None) if settings.offline_fallback else None,
        training=Training(recipe, settings.seed, hardware, settings.validation),
        is_pinned=settings.sha256 is not None,
    )


class Pipeline:
    """One run of the stages: builds artifacts, or reuses them, and notes them in the run's record.

    Not a dataclass: Prefect would copy one that is a task's argument.
    """

    def __init__(self, plan: Plan, run: Run) -> None:
        self.plan, self.run, self.store = plan, run, run.store

    def build(
        self, artifact: str, on_progress: ProgressCallback | None = None, verdict: Verdict | None = None
    ) -> Outcome:
        """The artifact of a stage whose inputs were built before."""
        step = Step(self.plan, self.store, self.run.record.artifacts, verdict, on_progress)
        return self._note(artifact, self.store.get_or_create(STAGES[artifact].build(step)))

    def _note(self, artifact: str, outcome: Outcome) -> Outcome:
        logger.info(f"{STAGES[artifact].label}: {outcome.message}")
        self.run.add_artifacts(outcome.ref)
        return outcome

    def payload(self, artifact: str) -> Path:
        """The folder of an artifact's checked files."""
        return self.store.open(self.run.record.artifacts[artifact])

    def download(self, *, is_last_attempt: bool) -> Outcome:
        """The archive: reused, not needed, fetched, or the fallback's once no further attempt can help."""
        try:
            return self._build_raw()
        except (SourceUnavailable, TransferBroken) as error:
            can_continue = isinstance(error, TransferBroken) and not is_last_attempt
            is_stored = self.store.newest(STAGES["raw"].build(Step(self.plan, self.store, {})).key) is not None
            if self.plan.fallback is None or can_continue or is_stored:
                raise
            logger.info(f"download: {error}; continuing with --offline-fallback")
            self.plan = replace(self.plan, source=self.plan.fallback)
            return self._build_raw()

    def _build_raw(self) -> Outcome:
        unneeded = find_unneeded_raw(Step(self.plan, self.store, {}))
        return self._note("raw", unneeded) if unneeded else self.build("raw")


@contextmanager
def pipeline_run(settings: Settings, facts: Mapping[str, JsonValue]) -> Iterator[Pipeline]:
    """A run of the pipeline, on record from now on with how it ends."""
    plan = plan_run(settings)
    store = replace(open_store(store_location(settings.store)), refresh=settings.refresh)
    with recording_run(store, settings.to_record(), facts) as run:
        yield Pipeline(plan, run)


def find_unneeded_raw(step: Step) -> Outcome | None:
    """The archive, if no stage has to read it: the dataset that was built from it is intact."""
    store, key = step.store, STAGES["raw"].build(step).key
    if store.refresh in ("download", "normalize"):
        return None
    newest, sha256 = store.newest(key), step.plan.source.sha256
    if newest:
        ref = newest.ref
    elif sha256:  # a pinned archive has a known reference before it is downloaded
        ref = ArtifactRef(name=key.name, version=key.version, sha256=content_digest({ARCHIVE: sha256}))
    else:
        return None
    dataset = store.newest(STAGES["dataset"].build(replace(step, artifacts={"raw": ref})).key)
    if dataset is None or store.damage(dataset):
        return None
    return Outcome(ref, True, f"{ref} is not needed: {dataset.ref}, built from it, is intact")
