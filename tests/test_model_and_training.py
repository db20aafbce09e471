"""The tutorial's network and its training: the same weights as the tutorial's own code, and the same each time."""

import os
import pickle
import platform
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as the tutorial has it
from safetensors.torch import load_file
from tiny import CLASSES, tiny_dataset
from torch import Tensor, nn
from torchvision import transforms

from tasks.core.dataset import Dataset, save_dataset
from tasks.core.device import Hardware, choose_device, describe_device, precision_for
from tasks.core.errors import InputError
from tasks.core.model import Net
from tasks.core.networks import new_network
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.tables import read_facts, read_table
from tasks.core.training.images import training_images
from tasks.core.training.launch import train_into
from tasks.core.training.trainer import Trainer, Training
from tasks.core.training.watch import Watch
from tasks.core.weights import Lineage, load_lineage, load_network, save_weights

CPU = torch.device("cpu")
TUTORIAL = RECIPES["tutorial"]
NET = TUTORIAL.model
MEMORY = """
import resource
from pathlib import Path
import torch
from tasks.core.device import freed_memory_kept

def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def paged_in(tensors: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.zeros(2**26, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with freed_memory_kept():
    paged_in(20)
    print(paged_in(5), resident())
print(resident())
"""
LINE = re.compile(r"\[(\d+), ([ \d]{4}\d)\] loss: (\d+\.\d{3})")


class TutorialNet(nn.Module):
    """The network as the tutorial prints it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)  # type: ignore[no-any-return]


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(TUTORIAL.model_dump() | changes)


def lineage_of(dataset: Dataset, seed: int = 1) -> Lineage:
    return Lineage(recipe=TUTORIAL, seed=seed, classes=dataset.classes, dataset=dataset.identity)


def some_inputs() -> Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def trained(dataset: Dataset, folder: Path, own: Recipe = TUTORIAL, seed: int = 1) -> list[str]:
    """Train into a new folder, and return what was said."""
    folder.mkdir()
    said: list[str] = []
    with TemporaryDirectory() as images:
        save_dataset(dataset, Path(images))
        train_into(folder, Path(images), training(own, seed), Watch(said.append))
    return said


def training(own: Recipe = TUTORIAL, seed: int = 1, validation: int = 0) -> Training:
    return Training(own, seed, Hardware(CPU), validation)


# The network and its files


def test_a_state_dict_of_the_tutorials_network_gives_the_same_logits(tmp_path: Path) -> None:
    tutorial = TutorialNet()
    torch.save(tutorial.state_dict(), tmp_path / "cifar_net.pth")
    ours = Net()
    ours.load_state_dict(torch.load(tmp_path / "cifar_net.pth"))
    assert torch.equal(ours(some_inputs()), tutorial(some_inputs()))


def test_the_tutorials_network_opens_our_weights_with_torchs_defaults(tmp_path: Path) -> None:
    network = new_network(NET, 10, seed=3)
    save_weights(tmp_path, network, lineage_of(tiny_dataset([f"class {n}" for n in range(10)])))
    tutorial = TutorialNet()
    tutorial.load_state_dict(torch.load(tmp_path / "cifar_net.pth"))
    assert torch.equal(tutorial(some_inputs()), network(some_inputs()))


def test_both_files_of_the_weights_hold_the_same_tensors(tmp_path: Path) -> None:
    network = new_network(NET, len(CLASSES), seed=3)
    save_weights(tmp_path, network, lineage_of(tiny_dataset()))
    pth, safe = torch.load(tmp_path / "cifar_net.pth"), load_file(tmp_path / "weights.safetensors")
    assert pth.keys() == safe.keys() == network.state_dict().keys()
    assert all(torch.equal(pth[name], safe[name]) for name in pth)


def test_loaded_weights_give_the_network_that_was_saved_ready_for_inference(tmp_path: Path) -> None:
    network = new_network(NET, len(CLASSES), seed=3)
    save_weights(tmp_path, network, lineage_of(tiny_dataset()))
    loaded = load_network(tmp_path, NET, CPU)
    assert not loaded.training
    assert torch.equal(loaded(some_inputs()), network(some_inputs()))


def test_weights_know_what_they_were_trained_by_and_on(tmp_path: Path) -> None:
    lineage = lineage_of(tiny_dataset(kind="generated"), seed=7)
    save_weights(tmp_path, new_network(NET, len(CLASSES), 7), lineage)
    assert load_lineage(tmp_path) == lineage
    facts = lineage.facts()
    assert (facts["seed"], facts["generated_images"]) == (7, True)
    assert facts["recipe"] == TUTORIAL.model_dump()
    assert facts["dataset"] == lineage.dataset.model_dump()


class Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.folder,)


def test_code_in_a_weights_file_is_refused_and_does_not_run(tmp_path: Path) -> None:
    save_weights(tmp_path, new_network(NET, len(CLASSES), 1), lineage_of(tiny_dataset()))
    torch.save({"conv1.weight": Payload(tmp_path / "ran")}, tmp_path / "cifar_net.pth")
    with pytest.raises(pickle.UnpicklingError):
        load_network(tmp_path, NET, CPU)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_the_head_has_a_logit_for_each_class(classes: int) -> None:
    assert new_network(NET, classes, seed=1)(some_inputs()).shape == (5, classes)


def test_first_weights_are_those_the_tutorial_starts_from_with_the_same_seed() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tutorial = TutorialNet().state_dict()
    ours = new_network(NET, 10, seed=5).state_dict()
    assert all(torch.equal(ours[name], tutorial[name]) for name in tutorial)
    assert not torch.equal(ours["fc3.weight"], new_network(NET, 10, seed=6).state_dict()["fc3.weight"])


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
    net = new_network(NET, len(dataset.classes), seed)
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
    first = new_network(NET, len(CLASSES), seed=4).state_dict()
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
    network = new_network(NET, len(CLASSES), 1)
    trainer = Trainer(network, *training_images(dataset, 0, CPU), training(own))
    [point] = trainer.run(Watch(lambda _: None))
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


# Order in memory


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_network_that_views_its_features_is_trained_in_the_usual_order_alone(tmp_path: Path, precision: str) -> None:
    own = recipe(model="own_networks:viewing", batch_size=10, precision=precision)
    if precision == "float32":
        assert trained(tiny_dataset(), tmp_path / "weights", own)
        return
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", own)
    said = str(caught.value)
    assert said.startswith("model own_networks:viewing: expected it to take images in torch.channels_last, got: view ")
    assert said.endswith("; put flatten or reshape in the place of view, or give --precision float32")


# The device


def test_auto_finds_a_device_and_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == CPU
    torch.zeros(1, device=choose_device("auto"))
    assert describe_device(CPU).startswith("cpu (")


@pytest.mark.parametrize("number", [torch.cuda.device_count(), 99, 10**20])
def test_a_gpu_that_is_not_here_is_refused_with_how_many_are(number: int) -> None:
    with pytest.raises(InputError) as caught:
        choose_device(f"cuda:{number}")
    assert str(caught.value).startswith("device: expected ")
    assert f"cuda:{number}" in str(caught.value)


@pytest.mark.parametrize(("batch_size", "advice"), [(64, "try --batch-size 32"), (1, "try a smaller --model")])
def test_memory_that_runs_out_is_one_line_with_what_to_try(tmp_path: Path, batch_size: int, advice: str) -> None:
    greedy = recipe(model="own_networks:Greedy", batch_size=batch_size)
    with pytest.raises(InputError) as caught:
        trained(tiny_dataset(), tmp_path / "weights", greedy)
    images = f"batches of {batch_size} images"
    assert str(caught.value) == f"device cpu: expected room for {images}, got out of memory; {advice}"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": "Neoverse V1", "bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Core", "avx2": True}, torch.float32),
    ],
    ids=str,
)
def test_a_processor_computes_in_bfloat16_only_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert precision_for(CPU, "auto") == expected
    assert precision_for(CPU, "float32") == torch.float32


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left as they are")
def test_freed_memory_is_kept_for_the_next_step_and_given_back_in_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    paged_in, kept, given_back = map(int, done.stdout.split())
    assert paged_in < 1_000  # of 16,384 pages that each tensor takes
    assert kept - given_back > 50 * 2**20
