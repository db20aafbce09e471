"""On a GPU, where there is one: recorded and compiled steps, resuming to the bit, memory that runs out."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_dataset

from tasks.core.data.dataset import save_dataset
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
    """Training was left in the middle, as by a kill."""


class Interrupting(Checkpoint):
    """Saves after every stretch of steps, and ends the training at one of them."""

    saved = 0

    def save(self, state: object) -> None:
        super().save(state)  # type: ignore[arg-type]
        self.saved += 1
        if self.saved == 4:
            raise Interrupted


def small(name: str, **changes: object) -> Recipe:
    """A recipe with batches that make some steps of few images."""
    return Recipe.model_validate(RECIPES[name].model_dump() | changes)  # type: ignore[index]


def saved(folder: Path, train: int) -> Path:
    """The folder of a dataset of so many images to train on."""
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
        curve = Trainer(network, images, held_out, Training(own, 1, hardware)).run(Monitor(lambda _: None))
    return [point.running_loss for point in curve]


def test_auto_finds_it() -> None:
    assert choose_device("auto").type == "cuda"


def test_the_losses_of_the_tutorials_first_200_steps_are_those_of_a_cpu() -> None:
    own = small("tutorial", epochs=1)
    assert losses(own, CUDA) == pytest.approx(losses(own, CPU), rel=0, abs=1e-4)


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_recorded_step_gives_the_losses_of_one_that_is_not(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, replayed = small("fast", batch_size=50, precision=precision), list[None]()
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replayed.append(replay(graph)))
    recorded = losses(own, CUDA)
    assert len(replayed) == len(recorded) - 2
    monkeypatch.setattr("tasks.core.training.cuda_graph.OUR_MODELS", set())
    assert losses(own, CUDA) == recorded


@pytest.mark.parametrize(
    "own",
    [
        small("tutorial", epochs=1),
        small("fast", batch_size=128, epochs=3),
        small("record", batch_size=128, epochs=2),
        small("resnet18", batch_size=128, epochs=2),
        small("tutorial", model="own_networks:dropout_network", batch_size=128, epochs=3),
    ],
    ids=lambda own: f"{own.name} {own.model}",
)
def test_training_that_was_left_in_the_middle_ends_with_the_same_bytes(
    own: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, training = saved(tmp_path, train=2_100), Training(own, seed=3, hardware=CUDA)

    def train(folder: str, watch: Monitor) -> Path:
        (tmp_path / folder).mkdir(exist_ok=True)
        build_weights(tmp_path / folder, dataset, training, watch)
        return tmp_path / folder

    whole = train("whole", Monitor(lambda _: None))
    unfinished, said = tmp_path / "unfinished", list[str]()
    monkeypatch.setattr("tasks.core.training.monitor.CHECKPOINT_EVERY_S", 0)
    monkeypatch.setattr("tasks.core.training.trainer.IMAGES_PER_STRETCH_ON_GPU", 512)
    with pytest.raises(Interrupted):
        train("again", Monitor(lambda _: None, checkpoint=Interrupting(unfinished)))
    again = train("again", Monitor(said.append, checkpoint=Checkpoint(unfinished)))
    assert said[0].startswith("training goes on from epoch")
    for name in ("cifar_net.pth", "weights.safetensors", "training.parquet"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_a_compiled_network_learns(tmp_path: Path) -> None:
    if not is_compiled(CUDA, "auto"):
        pytest.skip("no compiler on this machine")
    own = small("record", compile="auto", batch_size=64, epochs=8, flip="none", shift=0)
    build_weights(tmp_path, saved(tmp_path, train=256), Training(own, 1, CUDA), Monitor(lambda _: None))
    losses = read_table(tmp_path / "training.parquet")["running_loss"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_memory_that_runs_out_is_one_line_with_the_batch_size_to_try(tmp_path: Path) -> None:
    training = Training(small("resnet18", batch_size=2_000), 1, CUDA)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with pytest.raises(InputError, match="batches of 2000 images, got out of memory; try --batch-size 1000"):
            build_weights(tmp_path, saved(tmp_path, train=2_000), training, Monitor(lambda _: None))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
