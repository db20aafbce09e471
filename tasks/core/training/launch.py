"""Starting a training: in this process, or in one for each of several devices."""

from pathlib import Path

from tasks.core.dataset import load_dataset
from tasks.core.training.part import train_part
from tasks.core.training.together import train_together
from tasks.core.training.trainer import Training
from tasks.core.training.watch import Watch


def train_into(folder: Path, dataset: Path, training: Training, watch: Watch) -> None:
    """Train on the dataset in a folder, going on from a checkpoint if there is one; leave weights and the loss curve.

    The weights are in `folder` then.
    """
    if training.hardware.count == 1:
        train_part(folder, load_dataset(dataset), training, watch)
    else:
        train_together(folder, dataset, training, watch)
