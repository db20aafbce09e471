"""Training: the same weights as the tutorial's own code, and the same each time."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as the tutorial has it
from tiny import CLASSES, tiny_dataset
from tiny_trainings import CPU, TUTORIAL, recipe, trained, training
from torch import Tensor, nn
from torchvision import transforms

from tasks.core.data.dataset import Dataset, save_dataset
from tasks.core.errors import InputError
from tasks.core.evaluation.evaluate import build_predictions
from tasks.core.models.factory import init_network
from tasks.core.recipes import Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.runtime.parquet import read_facts, read_table
from tasks.core.training.backends import memory_errors
from tasks.core.training.data import training_images
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Trainer, Training

NET = TUTORIAL.model
LINE = re.compile(r"\[(\d+), ([ \d]{4}\d)\] loss: (\d+\.\d{3})")


# The same each time


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        trained(dataset, tmp_path / name, seed=seed)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["cifar_net.pth", "training.parquet", "weights.safetensors"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (tmp_path / "one" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_what_was_drawn_before_does_not_change_the_weights(tmp_path: Path) -> None:
    trained(tiny_dataset(), tmp_path / "one")
    torch.rand(100)
    trained(tiny_dataset(), tmp_path / "again")
    assert (tmp_path / "one" / "cifar_net.pth").read_bytes() == (tmp_path / "again" / "cifar_net.pth").read_bytes()


def global_state() -> tuple[list[int], int, bool]:
    return torch.get_rng_state().tolist(), torch.get_num_threads(), bool(torch.backends.mkldnn.enabled)


@pytest.mark.parametrize("batch_size", [4, 16])
def test_training_leaves_torchs_global_state_as_it_was(tmp_path: Path, batch_size: int) -> None:
    before = global_state()
    trained(tiny_dataset(), tmp_path / "weights", recipe(batch_size=batch_size))
    assert global_state() == before


# The tutorial's loop


def plain_loop(dataset: Dataset, own: Recipe, seed: int) -> dict[str, Tensor]:
    """The tutorial's training loop on images one by one through its transforms, in the order that the seed gives."""
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
def test_weights_are_those_of_the_tutorials_loop_over_the_same_batches(tmp_path: Path, batch_size: int) -> None:
    dataset, own = tiny_dataset(train=30), recipe(batch_size=batch_size, learning_rate=0.01, epochs=3)
    trained(dataset, tmp_path / "weights", own, seed=4)
    ours, plain = torch.load(tmp_path / "weights" / "cifar_net.pth"), plain_loop(dataset, own, seed=4)
    first = init_network(NET, len(CLASSES), seed=4).state_dict()
    for name in plain:
        assert (plain[name] - first[name]).abs().max() > 1e-4  # else equal weights would say little
        torch.testing.assert_close(ours[name], plain[name], rtol=0, atol=1e-6)


def test_training_learns_the_images_by_heart(tmp_path: Path) -> None:
    dataset = tiny_dataset(train=12)
    trained(dataset, tmp_path / "weights", recipe(epochs=60, learning_rate=0.01))
    losses = read_table(tmp_path / "weights" / "training.parquet")["running_loss"]
    assert losses.iloc[-1] < 0.1 < 1 < losses.iloc[0]


# The loss curve


def test_every_2000_batches_of_the_tutorial_and_each_epochs_end_are_said_as_the_tutorial_says_them(
    tmp_path: Path,
) -> None:
    said = trained(tiny_dataset(train=8_004), tmp_path / "weights", recipe(epochs=1))
    assert [line[: line.index(":")] for line in said] == ["[1,  2000] loss", "[1,  2001] loss"]
    assert all(LINE.fullmatch(line) for line in said)


def test_with_other_batches_a_line_is_said_each_8000_images_and_at_each_epochs_end(tmp_path: Path) -> None:
    said = trained(tiny_dataset(train=8_010), tmp_path / "weights", recipe(epochs=2, batch_size=500))
    found = [LINE.fullmatch(line) for line in said]
    assert [(int(line[1]), int(line[2])) for line in found if line] == [(1, 16), (1, 17), (2, 16), (2, 17)]


def test_a_batch_of_more_than_8000_images_is_one_step_and_one_line(tmp_path: Path) -> None:
    said = trained(tiny_dataset(train=8_210), tmp_path / "weights", recipe(epochs=1, batch_size=8_200))
    assert [line[: line.index(":")] for line in said] == ["[1,     1] loss", "[1,     2] loss"]


def test_the_curve_counts_steps_over_all_epochs_and_agrees_with_what_was_said(tmp_path: Path) -> None:
    said = trained(tiny_dataset(train=24), tmp_path / "weights", recipe(epochs=3))
    curve = read_table(tmp_path / "weights" / "training.parquet")
    assert curve["step"].tolist() == [6, 12, 18]
    assert curve["epoch"].tolist() == [1, 2, 3]
    assert curve["learning_rate"].tolist() == [0.001] * 3
    rows = zip(curve["epoch"], curve["running_loss"], strict=True)
    assert said == [f"[{epoch},     6] loss: {loss:.3f}" for epoch, loss in rows]


def test_training_ends_after_so_many_steps_and_the_schedule_with_it(tmp_path: Path) -> None:
    own = recipe(epochs=3, steps=8, schedule="linear", batch_size=5)
    said = trained(tiny_dataset(train=23), tmp_path / "weights", own)
    curve = read_table(tmp_path / "weights" / "training.parquet")
    assert [line[: line.index(":")] for line in said] == ["[1,     5] loss", "[2,     3] loss"]
    assert curve["step"].tolist() == [5, 8]
    assert curve["learning_rate"].tolist() == pytest.approx([0.001 * 4 / 8, 0.001 * 1 / 8])


def test_more_steps_than_the_epochs_have_change_nothing(tmp_path: Path) -> None:
    for name, steps in (("all", None), ("more", 1_000)):
        trained(tiny_dataset(), tmp_path / name, recipe(steps=steps))
    assert (tmp_path / "all" / "cifar_net.pth").read_bytes() == (tmp_path / "more" / "cifar_net.pth").read_bytes()


def test_the_running_loss_is_the_mean_over_the_steps_since_the_point_before() -> None:
    dataset, own = tiny_dataset(train=10), recipe(epochs=1, learning_rate=1e-30)  # so small that nothing changes
    network = init_network(NET, len(CLASSES), 1)
    trainer = Trainer(network, *training_images(dataset, 0, CPU), training(own))
    [point] = trainer.run(Monitor(lambda _: None))
    images = torch.stack([transforms.ToTensor()(image.transpose(1, 2, 0)) * 2 - 1 for image in dataset.train_images])
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    labels = torch.from_numpy(dataset.train_labels).long()
    losses = [F.cross_entropy(network(images[batch]), labels[batch]).item() for batch in order.split(4)]
    assert point.running_loss == pytest.approx(sum(losses) / 3)


def test_the_curves_file_says_what_it_belongs_to(tmp_path: Path) -> None:
    dataset = tiny_dataset(kind="generated")
    trained(dataset, tmp_path / "weights", seed=9)
    facts = read_facts(tmp_path / "weights" / "training.parquet")
    assert (facts["artifact"], facts["seed"], facts["generated_images"]) == ("weights", 9, True)


# What has its turn between steps


def images_done(folder: Path, dataset: Dataset, patch: pytest.MonkeyPatch, **limits: float) -> list[int]:
    """After how many images other things had their turn."""
    patch.setattr("tasks.core.training.monitor.PROGRESS_EVERY_S", 0)
    for name, seconds in limits.items():
        patch.setattr(f"tasks.core.training.trainer.{name}", seconds)
    done: list[int] = []
    save_dataset(dataset, folder)
    watch = Monitor(lambda _: None, lambda progress: done.append(progress.images_done))
    build_weights(folder, folder, training(recipe(epochs=1)), watch)
    return done


def test_the_longer_steps_take_the_fewer_are_taken_at_once_and_it_makes_no_difference_to_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = tmp_path / "quick", tmp_path / "slow"
    for folder in (quick, slow):
        folder.mkdir()
    dataset = tiny_dataset(train=1_000)
    forever = float("inf")
    found = images_done(quick, dataset, monkeypatch, SHORT_S=forever, LONG_S=forever)
    assert found == [4, 12, 28, 60, 124, 252, 508, 764, 1_000]
    assert images_done(slow, dataset, monkeypatch, SHORT_S=0, LONG_S=0) == list(range(4, 1_001, 4))
    assert (quick / "cifar_net.pth").read_bytes() == (slow / "cifar_net.pth").read_bytes()


# Divergence


def test_a_loss_that_is_no_number_ends_training_with_advice_and_leaves_no_weights(tmp_path: Path) -> None:
    before = global_state()
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(train=40), tmp_path / "weights", recipe(learning_rate=10, epochs=5))
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith("training: expected a finite loss, got ")
    assert message.endswith("give a learning rate below 10.0")
    assert not list((tmp_path / "weights").iterdir())
    assert global_state() == before


# Arithmetic and memory


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_gpu_rounds_what_is_in_float32_only_where_a_recipe_lets_it_and_never_in_evaluation(
    tmp_path: Path, precision: str
) -> None:
    allowed: dict[bool, set[tuple[bool, bool]]] = {True: set(), False: set()}

    def note(module: nn.Module, *_: object) -> None:
        allowed[module.training].add((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))

    usual = torch.backends.cudnn.allow_tf32
    own = recipe(model="own_networks:dropout_network", batch_size=12, precision=precision)
    with nn.modules.module.register_module_forward_hook(note):
        trained(tiny_dataset(), tmp_path / "weights", own)
        allowed[False].clear()
        save_dataset(tiny_dataset(), tmp_path)
        build_predictions(tmp_path, tmp_path, tmp_path / "weights", own, CPU, {})
    assert allowed[True] == {(precision == "auto", precision == "auto")}
    assert (False, False) in allowed[False]
    assert torch.backends.cudnn.allow_tf32 == usual


def test_what_cannot_repeat_itself_is_one_line_where_all_should(tmp_path: Path) -> None:
    save_dataset(tiny_dataset(), tmp_path)
    repeating = Training(recipe(model="own_networks:Putting"), seed=1, hardware=Hardware(CPU, deterministic=True))
    with pytest.raises(InputError, match="repeat themselves to the bit, got put_, which does not; leave --determ"):
        build_weights(tmp_path, tmp_path, repeating, Monitor(lambda _: None))
    build_weights(tmp_path, tmp_path, training(repeating.recipe), Monitor(lambda _: None))


def test_a_loss_that_is_no_number_may_come_from_muons_rates_that_follow_from_the_batch_size(tmp_path: Path) -> None:
    own = recipe(optimizer="muon", batch_size=10_000, learning_rate=10, epochs=60)
    with pytest.raises(InputError, match=r"give a learning rate below 10\.0, or batches below 10000$"):
        trained(tiny_dataset(), tmp_path / "weights", own)


@pytest.mark.parametrize(("batch_size", "advice"), [(64, "try --batch-size 32"), (1, "try a smaller --model")])
def test_memory_that_runs_out_is_one_line_with_what_to_try(tmp_path: Path, batch_size: int, advice: str) -> None:
    greedy = recipe(model="own_networks:Greedy", batch_size=batch_size)
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", greedy)
    images = f"batches of {batch_size} images"
    assert str(caught.value) == f"device cpu: expected room for {images}, got out of memory; {advice}"


def test_a_smaller_batch_that_is_advised_divides_among_the_devices() -> None:
    sixteen = Hardware(CPU, count=16)
    with pytest.raises(InputError, match=r"try --batch-size 992$"), memory_errors(sixteen, batch_size=2_000):
        torch.empty(2**50)
