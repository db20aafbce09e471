"""The pipeline: download → normalize and cache → train → evaluate → report.

python flows/cifar_flow.py --help
"""

if __name__ == "__main__":  # The command line answers --help and wrong values before Prefect and torch are imported.
    from flows.cli.main import start

    start("run")

from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.parameters import flat_parameters
from tasks.core.config import Settings, store_location
from tasks.core.pipeline import training_of
from tasks.core.promotion_gate import promotion_gate
from tasks.core.store import open_store
from tasks.core.store.runs import recording_run
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.normalize import normalize_and_cache
from tasks.report import report
from tasks.train import train


@flow(name="cifar", flow_run_name="{recipe}-seed-{seed}")
@flat_parameters
def cifar_flow(settings: Settings) -> str:
    """Train and evaluate an image classifier; leave weights, tables and a report in the store.

    Returns the run's id.
    """
    log = get_run_logger().info
    training = training_of(settings)  # before anything is downloaded for a device that is not here
    store = open_store(store_location(settings.store), log)
    with recording_run(store, settings.to_record(), {"flow_run": str(flow_run.id)}, log) as run:
        raw = download(
            run.store,
            settings.source,
            settings.sha256,
            settings.offline_fallback,
            refresh=settings.refresh,
        ).result()
        run.keep(raw)
        dataset, checks = normalize_and_cache(run.store, raw, refresh=settings.refresh == "normalize").result()
        run.keep(dataset, checks)
        weights = train(run.store, dataset, training, refresh=settings.refresh == "train").result()
        run.keep(weights)
        predictions, per_class = evaluate(
            run.store, dataset, weights, training, refresh=settings.refresh == "evaluate"
        ).result()
        run.keep(predictions, per_class)
        with promotion_gate(run, settings.promote, settings.tolerance, log) as verdict:
            page = report(
                run.store,
                run.record.artifacts,
                verdict,
                pinned=settings.sha256 is not None,
                refresh=settings.refresh == "report",
            ).result()
            run.keep(page)
    return run.record.run
