"""Training on a GPU, if there is one: CUDA graphs, compilation, bit-for-bit resume, out of memory."""

from pathlib import Path

import pytest
import torch
from tiny import save_dataset, tiny_dataset

from tasks.core.errors import InputError
from tasks.core.models.factory import init_network
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime.device import Hardware, choose_device, is_compiled
from tasks.core.runtime.parquet import read_table
from tasks.core.training.backends import training_backend
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.data import training_images
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Trainer, Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

CPU, CUDA = Hardware(torch.device("cpu")), Hardware(torch.device("cuda", 0), deterministic=True)


class Interrupted(Exception):
    """The process was killed during training."""


class Interrupting(Checkpoint):
    """Ends the training at the fourth checkpoint."""

    saved = 0

    def save(self, state: object) -> None:
        super().save(state)  # type: ignore[arg-type]
        self.saved += 1
        if self.saved == 4:
            raise Interrupted


def small(name: str, **changes: object) -> Recipe:
    """A recipe with changes for a few images."""
    return Recipe.model_validate(RECIPES[name].model_dump() | changes)  # type: ignore[index]


def saved(folder: Path, train: int) -> Path:
    """The folder of a dataset with `train` training images."""
    dataset = folder / "dataset"
    dataset.mkdir()
    save_dataset(tiny_dataset(train=train), dataset)
    return dataset


def losses(own: Recipe, hardware: Hardware) -> list[float]:
    """The loss of each step."""
    images, held_out = training_images(tiny_dataset(train=800), 0, hardware.device)
    with pytest.MonkeyPatch.context() as patch, training_backend(own, hardware):
        patch.setattr("tasks.core.training.trainer.IMAGES_PER_POINT", own.batch_size)
        network = init_network(own.model, 10, seed=1).to(hardware.device)
        curve = Trainer(network, images, held_out, Training(own, 1, hardware)).run(Monitor())
    return [point.running_loss for point in curve]


def test_auto_chooses_the_gpu() -> None:
    assert choose_device("auto").type == "cuda"


def test_the_tutorials_losses_equal_those_on_a_cpu() -> None:
    own = small("tutorial", epochs=1)
    assert losses(own, CUDA) == pytest.approx(losses(own, CPU), rel=0, abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_cuda_graph_gives_the_losses_of_eager_steps(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, replayed = small("fast", batch_size=50, precision=precision), list[None]()
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replayed.append(replay(graph)))
    recorded = losses(own, CUDA)
    assert len(replayed) == len(recorded) - 2
    monkeypatch.setattr("tasks.core.training.cuda_graph.BUILT_IN_MODELS", set())
    assert losses(own, CUDA) == recorded


@pytest.mark.parametrize(
    "own",
    [
        small("tutorial", epochs=1),
        small("fast", batch_size=128, epochs=3),
        small("record", batch_size=128, epochs=2),
        small("resnet18", batch_size=128, epochs=2),
        small("tutorial", model="custom_networks:dropout_network", batch_size=128, epochs=3),
    ],
    ids=lambda own: f"{own.name} {own.model}",
)
def test_an_interrupted_training_resumes_with_the_same_bytes(
    own: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    dataset, training = saved(tmp_path, train=2_100), Training(own, seed=3, hardware=CUDA)

    def train(folder: str, monitor: Monitor) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        build_weights(tmp_path / folder, dataset, training, monitor)
        return tmp_path / folder

    whole = train("whole", Monitor())
    unfinished = tmp_path / "unfinished"
    monkeypatch.setattr("tasks.core.training.monitor.CHECKPOINT_EVERY_S", 0)
    monkeypatch.setattr("tasks.core.training.trainer.MAX_IMAGES_PER_CHUNK_ON_GPU", 512)
    with pytest.raises(Interrupted):
        train("again", Monitor(checkpoint=Interrupting(unfinished)))
    log.clear()
    again = train("again", Monitor(checkpoint=Checkpoint(unfinished)))
    assert log[0].startswith("train: resuming from epoch")
    for name in ("cifar_net.pth", "weights.safetensors", "training.parquet"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_a_compiled_network_learns(tmp_path: Path) -> None:
    if not is_compiled(CUDA, "auto"):
        pytest.skip("no compiler on this machine")
    own = small("record", compile="auto", batch_size=64, epochs=8, flip="none", shift=0)
    build_weights(tmp_path, saved(tmp_path, train=256), Training(own, 1, CUDA), Monitor())
    losses = read_table(tmp_path / "training.parquet")["running_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_out_of_memory_is_one_line_with_a_batch_size_to_try(tmp_path: Path) -> None:
    training = Training(small("resnet18", batch_size=2_000), 1, CUDA)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with pytest.raises(InputError, match="batches of 2000 images, got out of memory; try --batch-size 1000"):
            build_weights(tmp_path, saved(tmp_path, train=2_000), training, Monitor())
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
