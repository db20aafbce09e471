"""The training curve: `training.parquet`."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from tasks.core.runtime.parquet import make_schema

TRAINING = make_schema(
    [
        ("step", pa.int32(), "training steps so far"),
        ("epoch", pa.int32(), "the epoch that the step is of, from 1 on"),
        ("running_loss", pa.float64(), "mean cross-entropy since the row before"),
        ("learning_rate", pa.float64(), "the learning rate of the step"),
        ("running_accuracy", pa.float64(), "share of training images predicted right since the row before"),
        ("validation_loss", pa.float64(), "cross-entropy on the images held out; only at an epoch's end"),
        ("validation_accuracy", pa.float64(), "share of the images held out that is predicted right; likewise"),
    ]
)


class TrainingPoint(NamedTuple):
    """What training came to since the point before, after `step` steps in all; accuracies are in [0, 1].

    At the end of an epoch, if images are held out, what the network makes of them.
    """

    step: int
    epoch: int
    running_loss: float
    learning_rate: float
    running_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


def training_table(curve: Sequence[TrainingPoint]) -> pa.Table:
    return pa.Table.from_pylist([point._asdict() for point in curve], schema=TRAINING)
