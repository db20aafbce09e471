"""Starting a training: in this process, or in one for each of several devices."""

from pathlib import Path

from tasks.core.data.dataset import load_dataset
from tasks.core.training.distributed.launch import train_distributed
from tasks.core.training.distributed.rank import train_rank
from tasks.core.training.monitor import Monitor
from tasks.core.training.trainer import Training


def build_weights(folder: Path, dataset: Path, training: Training, watch: Monitor) -> None:
    """Train on the dataset in a folder, going on from a checkpoint if there is one; leave weights and the loss curve.

    The weights are in `folder` then.
    """
    if training.hardware.count == 1:
        train_rank(folder, load_dataset(dataset), training, watch)
    else:
        train_distributed(folder, dataset, training, watch)
