"""Training: the same weights as the tutorial's own loop, and the same in each run."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as the tutorial has it
from tiny import CLASSES, save_dataset, tiny_dataset
from tiny_trainings import CPU, TUTORIAL, recipe, train, training
from torch import Tensor, nn
from torchvision import transforms

from tasks.core.data.dataset import Dataset
from tasks.core.errors import InputError
from tasks.core.evaluation.evaluate import build_predictions
from tasks.core.models.factory import init_network
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.training.backends import training_errors
from tasks.core.training.data import training_images
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Trainer, Training

NET = TUTORIAL.model
LINE = re.compile(r"\[(\d+), ([ \d]{4}\d)\] loss: (\d+\.\d{3})")


# Reproducibility


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        train(dataset, tmp_path / name, seed=seed)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["cifar_net.pth", "training.parquet", "weights.safetensors"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_earlier_random_numbers_do_not_change_the_weights(tmp_path: Path) -> None:
    train(tiny_dataset(), tmp_path / "one")
    torch.rand(100)
    train(tiny_dataset(), tmp_path / "again")
    assert (tmp_path / "one" / "cifar_net.pth").read_bytes() == (tmp_path / "again" / "cifar_net.pth").read_bytes()


def global_state() -> tuple[list[int], int, bool]:
    return torch.get_rng_state().tolist(), torch.get_num_threads(), bool(torch.backends.mkldnn.enabled)


@pytest.mark.parametrize("batch_size", [4, 16])
def test_training_restores_torchs_global_state(tmp_path: Path, batch_size: int) -> None:
    before = global_state()
    train(tiny_dataset(), tmp_path / "weights", recipe(batch_size=batch_size))
    assert global_state() == before


# The tutorial's loop


def plain_loop(dataset: Dataset, own: Recipe, seed: int) -> dict[str, Tensor]:
    """The tutorial's training loop with its transforms, in the order of our seed."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])
    images = [transform(image.transpose(1, 2, 0)) for image in dataset.train_images]
    net = init_network(NET, len(dataset.classes), seed)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=own.learning_rate, momentum=own.momentum)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(own.epochs):
        order = torch.randperm(len(images), generator=generator).tolist()
        for start in range(0, len(order), own.batch_size):
            batch = order[start : start + own.batch_size]
            labels = torch.tensor([int(dataset.train_labels[index]) for index in batch])
            optimizer.zero_grad()
            loss = criterion(net(torch.stack([images[index] for index in batch])), labels)
            loss.backward()
            optimizer.step()
    return net.state_dict()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_weights_equal_those_of_the_tutorials_loop(tmp_path: Path, batch_size: int) -> None:
    dataset, own = tiny_dataset(train=30), recipe(batch_size=batch_size, learning_rate=0.01, epochs=3)
    train(dataset, tmp_path / "weights", own, seed=4)
    ours, plain = torch.load(tmp_path / "weights" / "cifar_net.pth"), plain_loop(dataset, own, seed=4)
    initial = init_network(NET, len(CLASSES), seed=4).state_dict()
    for name in plain:
        assert (plain[name] - initial[name]).abs().max() > 1e-4  # else equal weights would prove little
        torch.testing.assert_close(ours[name], plain[name], rtol=0, atol=1e-6)


def test_training_memorizes_a_few_images(tmp_path: Path) -> None:
    dataset = tiny_dataset(train=12)
    train(dataset, tmp_path / "weights", recipe(epochs=60, learning_rate=0.01))
    losses = read_table(tmp_path / "weights" / "training.parquet")["running_loss"]
    assert losses.iloc[-1] < 0.1 < 1 < losses.iloc[0]


# The learning curve


def test_log_lines_are_the_tutorials_each_2000_batches(tmp_path: Path) -> None:
    lines = train(tiny_dataset(train=8_004), tmp_path / "weights", recipe(epochs=1))
    assert [line[: line.index(":")] for line in lines] == ["[1,  2000] loss", "[1,  2001] loss"]
    assert all(LINE.fullmatch(line) for line in lines)


@pytest.fixture
def short_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """A point of the learning curve every 80 images."""
    monkeypatch.setattr("tasks.core.training.trainer.IMAGES_PER_POINT", 80)


@pytest.mark.usefixtures("short_points")
def test_other_batches_have_lines_for_as_many_images_and_each_epoch(tmp_path: Path) -> None:
    lines = train(tiny_dataset(train=82), tmp_path / "weights", recipe(epochs=2, batch_size=5))
    matches = [LINE.fullmatch(line) for line in lines]
    assert [(int(match[1]), int(match[2])) for match in matches if match] == [(1, 16), (1, 17), (2, 16), (2, 17)]


@pytest.mark.usefixtures("short_points")
def test_a_batch_larger_than_a_point_is_one_step_and_one_line(tmp_path: Path) -> None:
    lines = train(tiny_dataset(train=83), tmp_path / "weights", recipe(epochs=1, batch_size=82))
    assert [line[: line.index(":")] for line in lines] == ["[1,     1] loss", "[1,     2] loss"]


def test_the_curve_counts_steps_over_all_epochs_and_agrees_with_the_log(tmp_path: Path) -> None:
    lines = train(tiny_dataset(train=24), tmp_path / "weights", recipe(epochs=3))
    curve = read_table(tmp_path / "weights" / "training.parquet")
    assert curve["step"].tolist() == [6, 12, 18]
    assert curve["epoch"].tolist() == [1, 2, 3]
    assert curve["learning_rate"].tolist() == [0.001] * 3
    rows = zip(curve["epoch"], curve["running_loss"], strict=True)
    assert lines == [f"[{epoch},     6] loss: {loss:.3f}" for epoch, loss in rows]


def test_the_step_limit_ends_training_and_the_schedule(tmp_path: Path) -> None:
    own = recipe(epochs=3, steps=8, schedule="linear", batch_size=5)
    lines = train(tiny_dataset(train=23), tmp_path / "weights", own)
    curve = read_table(tmp_path / "weights" / "training.parquet")
    assert [line[: line.index(":")] for line in lines] == ["[1,     5] loss", "[2,     3] loss"]
    assert curve["step"].tolist() == [5, 8]
    assert curve["learning_rate"].tolist() == pytest.approx([0.001 * 4 / 8, 0.001 * 1 / 8])


def test_a_step_limit_above_the_epochs_steps_changes_nothing(tmp_path: Path) -> None:
    for name, steps in (("all", None), ("more", 1_000)):
        train(tiny_dataset(), tmp_path / name, recipe(steps=steps))
    assert (tmp_path / "all" / "cifar_net.pth").read_bytes() == (tmp_path / "more" / "cifar_net.pth").read_bytes()


def test_the_running_loss_is_the_mean_since_the_previous_point() -> None:
    dataset, own = tiny_dataset(train=10), recipe(epochs=1, learning_rate=1e-30)  # too small to change anything
    network = init_network(NET, len(CLASSES), 1)
    trainer = Trainer(network, *training_images(dataset, 0, CPU), training(own))
    [point] = trainer.run(Monitor())
    images = torch.stack([transforms.ToTensor()(image.transpose(1, 2, 0)) * 2 - 1 for image in dataset.train_images])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    labels = torch.from_numpy(dataset.train_labels).long()
    losses = [F.cross_entropy(network(images[batch]), labels[batch]).item() for batch in order.split(4)]
    assert point.running_loss == pytest.approx(sum(losses) / 3)


def test_the_curves_file_has_its_lineage(tmp_path: Path) -> None:
    dataset = tiny_dataset(kind="generated")
    train(dataset, tmp_path / "weights", seed=9)
    facts = read_facts(tmp_path / "weights" / "training.parquet")
    assert (facts["artifact"], facts["seed"], facts["generated_images"]) == ("weights", 9, True)


# Chunks


def chunk_ends(folder: Path, dataset: Dataset, patch: pytest.MonkeyPatch, **limits: float) -> list[int]:
    """The number of images after each chunk."""
    patch.setattr("tasks.core.training.monitor.PROGRESS_EVERY_S", 0)
    for name, seconds in limits.items():
        patch.setattr(f"tasks.core.training.trainer.{name}", seconds)
    done: list[int] = []
    save_dataset(dataset, folder)
    monitor = Monitor(lambda progress: done.append(progress.images_done))
    build_weights(folder, folder, training(recipe(epochs=1)), monitor)
    return done


def test_slow_steps_make_small_chunks_and_do_not_change_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = tmp_path / "quick", tmp_path / "slow"
    for folder in (quick, slow):
        folder.mkdir()
    dataset = tiny_dataset(train=1_000)
    forever = float("inf")
    ends = chunk_ends(quick, dataset, monkeypatch, SHORT_CHUNK_S=forever, LONG_CHUNK_S=forever)
    assert ends == [4, 12, 28, 60, 124, 252, 508, 764, 1_000]
    assert chunk_ends(slow, dataset, monkeypatch, SHORT_CHUNK_S=0, LONG_CHUNK_S=0) == list(range(4, 1_001, 4))
    assert (quick / "cifar_net.pth").read_bytes() == (slow / "cifar_net.pth").read_bytes()


# Divergence


def test_a_loss_that_is_not_finite_ends_training_without_weights(tmp_path: Path) -> None:
    before = global_state()
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(train=40), tmp_path / "weights", recipe(learning_rate=10, epochs=5))
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("training: expected a finite loss, got ")
    assert message.endswith("give a learning rate below 10.0")
    assert not list((tmp_path / "weights").iterdir())
    assert global_state() == before


# Arithmetic and memory


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_only_training_with_auto_precision_may_use_tensorfloat32(tmp_path: Path, precision: str) -> None:
    allowed: dict[bool, set[tuple[bool, bool]]] = {True: set(), False: set()}

    def note(module: nn.Module, *_: object) -> None:
        allowed[module.training].add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))

    before = torch.backends.cudnn.allow_tf32
    own = recipe(model="custom_networks:dropout_network", batch_size=12, precision=precision)
    with nn.modules.module.register_module_forward_hook(note):
        train(tiny_dataset(), tmp_path / "weights", own)
        allowed[False].clear()
        save_dataset(tiny_dataset(), tmp_path)
        build_predictions(tmp_path, tmp_path, tmp_path / "weights", own, CPU, {})
    assert allowed[True] == {(precision == "auto", precision == "auto")}
    assert (False, False) in allowed[False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_a_nondeterministic_operation_is_an_error_with_deterministic(tmp_path: Path) -> None:
    save_dataset(tiny_dataset(), tmp_path)
    own = recipe(model="custom_networks:Putting")
    deterministic = Training(own, seed=1, hardware=Hardware(CPU, deterministic=True))
    with pytest.raises(InputError, match="only operations that are deterministic, got put_, which is not; leave"):
        build_weights(tmp_path, tmp_path, deterministic, Monitor())
    build_weights(tmp_path, tmp_path, training(own), Monitor())


def test_the_advice_for_muon_includes_smaller_batches(tmp_path: Path) -> None:
    own = recipe(optimizer="muon", batch_size=10_000, learning_rate=10, epochs=60)
    with pytest.raises(InputError, match=r"give a learning rate below 10\.0, or batches below 10000$"):
        train(tiny_dataset(), tmp_path / "weights", own)


@pytest.mark.parametrize(("batch_size", "advice"), [(64, "try --batch-size 32"), (1, "try a smaller --model")])
def test_out_of_memory_is_one_line_with_advice(tmp_path: Path, batch_size: int, advice: str) -> None:
    greedy = recipe(model="custom_networks:Greedy", batch_size=batch_size)
    with pytest.raises(InputError) as caught:
        train(tiny_dataset(), tmp_path / "weights", greedy)
    expected = f"memory for batches of {batch_size} images"
    assert str(caught.value) == f"device cpu: expected {expected}, got out of memory; {advice}"


def test_the_advised_batch_size_divides_among_the_devices() -> None:
    sixteen = Hardware(CPU, count=16)
    with pytest.raises(InputError, match=r"try --batch-size 992$"), training_errors(sixteen, batch_size=2_000):
        torch.empty(2**50)
