"""One process's part of a training: all of it, or its share of every batch."""

from pathlib import Path

from tasks.core.dataset import Dataset
from tasks.core.networks import new_network
from tasks.core.randomness import seeded
from tasks.core.tables import training_table, write_table
from tasks.core.training.images import training_images
from tasks.core.training.kernels import computing
from tasks.core.training.trainer import Trainer, Training
from tasks.core.training.watch import Watch
from tasks.core.training.workers import ALONE, Workers
from tasks.core.weights import Lineage, save_weights


def train_part(folder: Path, dataset: Dataset, training: Training, watch: Watch, workers: Workers = ALONE) -> None:
    """Train, going on from a checkpoint if there is one; who leads leaves weights and the loss curve in `folder`."""
    recipe, device = training.recipe, training.hardware.device
    # What a network draws by itself, as dropout does, follows from the seed too.
    with computing(recipe, training.hardware), seeded(training.seed, device):
        images, held_out = training_images(dataset, training.validation, device)
        network = new_network(recipe.model, len(dataset.classes), training.seed).to(device)
        curve = Trainer(network, images, held_out, training, workers).run(watch)
    if workers.leads:
        lineage = Lineage(recipe=recipe, seed=training.seed, classes=dataset.classes, dataset=dataset.identity)
        save_weights(folder, network, lineage)
        write_table(folder / "training.parquet", training_table(curve), {"artifact": "weights", **lineage.facts()})
