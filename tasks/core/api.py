"""The public Python API: `from tasks import open_store`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tasks.core import store as core
from tasks.core.config import store_location
from tasks.core.evaluation.intervals import Estimate
from tasks.core.evaluation.metrics import read_scores
from tasks.core.evaluation.paired import Comparison
from tasks.core.evaluation.paired import compare as compare_predictions
from tasks.core.reports.compare.runs import runs_on_same_images
from tasks.core.runtime.parquet import read_table
from tasks.core.store.history import HistoryRow, find_artifact, find_run, history

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.core.data.checks import DataChecks


@dataclass(frozen=True)
class Store:
    """The runs of a store and their artifacts, read only."""

    _core: core.Store

    def runs(self) -> pd.DataFrame:
        """Every run, newest first: when it started, who started it, recipe, dataset, accuracy with its 95% interval."""
        rows = [row.model_dump() for row in history(self._core)]
        frame = pd.DataFrame(rows, columns=list(HistoryRow.model_fields))
        return frame.assign(started=pd.to_datetime(frame["started"], utc=True))

    def run(self, name: str = "current") -> "Run":
        """A run by its id, the beginning of its id, `current` or `previous`; InputError if there is none."""
        return Run(self._core, find_run(self._core, name).run)

    def compare(self, first: str, second: str) -> Comparison:
        """The paired difference between two runs on the same test images; positive if the second is more accurate."""
        records = runs_on_same_images(self._core, (first, second))
        return compare_predictions(*(Run(self._core, record.run).predictions for record in records))


@dataclass(frozen=True)
class Run:
    """A run's artifacts; every file is checked against its manifest before it is read."""

    _core: core.Store = field(repr=False)
    id: str

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the run was started with."""
        return dict(find_run(self._core, self.id).settings)

    @property
    def per_class(self) -> pd.DataFrame:
        """One row a class: accuracy, precision and F1 with their 95% intervals."""
        return self._table("per_class", "per_class.parquet")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row a test image: label, prediction, confidence and the probability of each class."""
        return self._table("predictions", "predictions.parquet")

    @property
    def calibration(self) -> pd.DataFrame:
        """One row a confidence bin: how many images, and how many of them were predicted correctly."""
        return self._table("per_class", "calibration.parquet")

    @property
    def training(self) -> pd.DataFrame:
        """The learning curve: loss, accuracy and learning rate by training step."""
        return self._table("weights", "training.parquet")

    @property
    def duplicates(self) -> pd.DataFrame:
        """One row a pair of duplicate or near-duplicate images of the dataset."""
        return self._table("data_checks", "duplicates.parquet")

    @property
    def data_checks(self) -> "DataChecks":
        """Counts of classes, duplicates, brightness and contrast in the dataset."""
        from tasks.core.data.checks import load_checks  # imports torch

        return load_checks(self.path("data_checks"))

    @property
    def scores(self) -> dict[str, Estimate]:
        """Accuracy, top-k accuracy, log loss, Brier score, calibration error and macro F1 with their 95% intervals."""
        return read_scores(self.path("per_class")).scores

    @property
    def weights(self) -> "dict[str, Tensor]":
        """The trained weights, a state_dict on the CPU."""
        import torch  # takes seconds, and tables do without

        path = self.path("weights") / "cifar_net.pth"
        weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return weights

    @property
    def report(self) -> Path:
        """The path of `report.html`."""
        return self.path("report") / "report.html"

    def model(self, factory: str | None = None) -> "nn.Module":
        """The trained network in eval mode on the CPU.

        A custom network's code is only imported if `factory` names it, as `package.module:factory`.
        """
        import torch

        from tasks.core.inference.classifier import load_classifier

        return load_classifier(self._core, self.id, torch.device("cpu"), factory).network

    def path(self, artifact: str) -> Path:
        """The folder of an artifact's files, which must not be changed."""
        return self._core.open(find_artifact(self._core, self.id, artifact))

    def _table(self, artifact: str, file: str) -> pd.DataFrame:
        return read_table(self.path(artifact) / file)


def open_store(location: Path | str | None = None) -> Store:
    """Open a folder or an `s3://bucket/prefix`; by default CIFAR_FLOW_STORE or the project's artifacts folder."""
    return Store(core.open_store(store_location(str(location) if location else None), must_exist=True))
