"""The learning curve: `training.parquet`."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from tasks.core.runtime.parquet import make_schema

TRAINING = make_schema(
    [
        ("step", pa.int32(), "training steps so far"),
        ("epoch", pa.int32(), "the epoch of the step, from 1"),
        ("running_loss", pa.float64(), "mean cross-entropy since the previous row"),
        ("learning_rate", pa.float64(), "the learning rate of the step"),
        ("running_accuracy", pa.float64(), "share of training images predicted correctly since the previous row"),
        ("validation_loss", pa.float64(), "cross-entropy on the held-out images, at the end of an epoch"),
        ("validation_accuracy", pa.float64(), "share of held-out images predicted correctly, at the end of an epoch"),
    ]
)


class TrainingPoint(NamedTuple):
    """A row of TRAINING; accuracies are in [0, 1]."""

    step: int
    epoch: int
    running_loss: float
    learning_rate: float
    running_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


def training_table(curve: Sequence[TrainingPoint]) -> pa.Table:
    return pa.Table.from_pylist([point._asdict() for point in curve], schema=TRAINING)
