"""One rank of a training: all of it, or its part of every batch in a worker."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed import TCPStore, init_process_group  # type: ignore[attr-defined]

from tasks.core.data.dataset import Dataset, load_dataset
from tasks.core.errors import EnvironmentFailure
from tasks.core.models.factory import init_network, model_code_digests
from tasks.core.models.weights import Lineage, save_weights
from tasks.core.runtime.core_code import code_digests
from tasks.core.runtime.device import Hardware
from tasks.core.runtime.logs import log_handler
from tasks.core.runtime.parquet import write_table
from tasks.core.runtime.seeding import fixed_seed
from tasks.core.training.backends import training_backend
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.curve import training_table
from tasks.core.training.data import training_images
from tasks.core.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from tasks.core.training.distributed.worker import ParentConnection
from tasks.core.training.monitor import Monitor
from tasks.core.training.trainer import Trainer, Training


def train_rank(
    folder: Path, dataset: Dataset, training: Training, monitor: Monitor, processes: ProcessGroup = SINGLE_PROCESS
) -> None:
    """Train, from the checkpoint if there is one; rank 0 writes the weights and the learning curve to `folder`."""
    recipe, device = training.recipe, training.hardware.device
    # Random numbers that a network draws, as for dropout, follow from the seed too.
    with training_backend(recipe, training.hardware), fixed_seed(training.seed, device):
        images, held_out = training_images(dataset, training.validation, device)
        network = init_network(recipe.model, len(dataset.classes), training.seed).to(device)
        curve = Trainer(network, images, held_out, training, processes).run(monitor)
    if processes.is_rank_0:
        lineage = Lineage(recipe=recipe, seed=training.seed, classes=dataset.classes, dataset=dataset.identity)
        save_weights(folder, network, lineage)
        write_table(folder / "training.parquet", training_table(curve), {"artifact": "weights", **lineage.facts()})


def training_code(training: Training) -> dict[str, str]:
    """The digests of the code that trains, as this process has imported it."""
    return code_digests(train_rank) | model_code_digests(training.recipe.model)


def train_in_worker(
    folder: Path,
    dataset: Path,
    training: Training,
    checkpoint: Checkpoint | None,
    code: Mapping[str, str],
    threads: int,
    store_port: int,
    rank: int,
    parent: ParentConnection,
) -> None:
    """Train one rank in this worker, with the same code as in the parent; rank 0 sends log lines and progress."""
    if changed := sorted(dict(training_code(training).items() ^ code.items())):
        raise EnvironmentFailure(f"training: code {changed[0]} changed since the run began", advice="run again")
    torch.set_num_threads(threads)
    hardware = _join_process_group(training.hardware, rank, store_port)
    monitor = Monitor(None if rank else parent.send, checkpoint)
    with log_handler(lambda record: None if rank else parent.send(record.getMessage())):
        processes = ProcessGroup(rank, hardware.count)
        train_rank(folder, load_dataset(dataset), replace(training, hardware=hardware), monitor, processes)


def _join_process_group(hardware: Hardware, rank: int, store_port: int) -> Hardware:
    device, backend, bound_device = hardware.device, "gloo", None
    if device.type == "cuda":
        device = bound_device = torch.device("cuda", (device.index or 0) + rank)
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    store = TCPStore("127.0.0.1", store_port)
    init_process_group(backend, store=store, rank=rank, world_size=hardware.count, device_id=bound_device)
    return replace(hardware, device=device)
