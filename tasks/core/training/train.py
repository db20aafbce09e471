"""Training: in this process, or in one worker process a device."""

from pathlib import Path

from tasks.core.data.dataset import load_dataset
from tasks.core.training.distributed.launch import train_distributed
from tasks.core.training.distributed.rank import train_rank
from tasks.core.training.monitor import Monitor
from tasks.core.training.trainer import Training


def build_weights(folder: Path, dataset: Path, training: Training, monitor: Monitor) -> None:
    """Train on a stored dataset, from the checkpoint if there is one; write weights and learning curve to `folder`."""
    if training.hardware.count == 1:
        train_rank(folder, load_dataset(dataset), training, monitor)
    else:
        train_distributed(folder, dataset, training, monitor)
