"""The pipeline: download → normalize and cache → train → evaluate → report.

python flows/cifar_flow.py --help
"""

if __name__ == "__main__":  # The command line answers --help and wrong values before Prefect and torch are imported.
    import runpy
    import sys

    sys.argv.insert(1, "run")
    runpy.run_module("flows.cli", run_name="__main__")

from prefect import flow
from prefect.runtime import flow_run

from flows.parameters import flat_parameters
from tasks.core.config import Settings
from tasks.core.pipeline_run import pipeline_run
from tasks.core.promotion_gate import promotion_gate
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
    with pipeline_run(settings, {"flow_run": str(flow_run.id)}) as pipeline:
        archive = download(pipeline)
        dataset = normalize_and_cache(pipeline, wait_for=[archive])
        weights = train(pipeline, wait_for=[dataset])
        tables = evaluate(pipeline, wait_for=[weights])
        with promotion_gate(pipeline.run, settings.promote, settings.tolerance) as verdict:
            report(pipeline, verdict, wait_for=[tables])
    return pipeline.run.record.run
