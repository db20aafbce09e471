"""One process's part of a training: all of it, or its share of every batch."""

from pathlib import Path

from tasks.core.data.dataset import Dataset
from tasks.core.models.factory import init_network
from tasks.core.models.weights import Lineage, save_weights
from tasks.core.runtime.parquet import write_table
from tasks.core.runtime.seeding import fixed_seed
from tasks.core.training.backends import training_backend
from tasks.core.training.curve import training_table
from tasks.core.training.data import training_images
from tasks.core.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tasks.core.training.monitor import Monitor
from tasks.core.training.trainer import Trainer, Training


def train_rank(
    folder: Path, dataset: Dataset, training: Training, watch: Monitor, workers: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Train, going on from a checkpoint if there is one; who leads leaves weights and the loss curve in `folder`."""
    recipe, device = training.recipe, training.hardware.device
    # What a network draws by itself, as dropout does, follows from the seed too.
    with training_backend(recipe, training.hardware), fixed_seed(training.seed, device):
        images, held_out = training_images(dataset, training.validation, device)
        network = init_network(recipe.model, len(dataset.classes), training.seed).to(device)
        curve = Trainer(network, images, held_out, training, workers).run(watch)
    if workers.is_rank_0:
        lineage = Lineage(recipe=recipe, seed=training.seed, classes=dataset.classes, dataset=dataset.identity)
        save_weights(folder, network, lineage)
        write_table(folder / "training.parquet", training_table(curve), {"artifact": "weights", **lineage.facts()})
