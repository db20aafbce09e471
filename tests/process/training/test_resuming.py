"""Training that was killed or interrupted goes on where it was, and ends as if nothing had happened."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from killing import next_line, started
from tiny import tiny_dataset

from tasks.core.data.dataset import save_dataset
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.training.checkpoint import Checkpoint, DamagedCheckpoint
from tasks.core.training.monitor import STOPPED_LATE, Monitor
from tasks.core.training.signals import deferred_signals
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Training

CPU = torch.device("cpu")
IMAGES = 1_100

TRAINING = """
import sys
from pathlib import Path
import torch
from tasks.core.training import monitor as monitoring
from tasks.core.training.train import build_weights
from test_resuming import training
watching.CHECKPOINT_EVERY_S = 0  # after each stretch of steps

folder, dataset, unfinished, recipe = map(Path, sys.argv[1:])
watching.PATIENCE_S = 0 if ":" in str(recipe) else 60
folder.mkdir(exist_ok=True)
show = lambda progress: print(progress.images_done, flush=True)
watching.PROGRESS_EVERY_S = 0
with watching.watching(lambda line: print(line, flush=True), unfinished, show) as watch:
    build_weights(folder, dataset, training(str(recipe)), watch)
print("done", flush=True)
"""

LATE = """
import sys
from pathlib import Path
from tasks.core.training.monitor import monitoring
with monitoring(lambda line: print(line, flush=True), Path(sys.argv[1]), None) as watch:
    watch.begin()
    print("saving weights", flush=True)
    sys.stdin.readline()
print("done")
"""


def training(name: str) -> Training:
    recipes = {
        "tutorial": RECIPES["tutorial"].model_copy(update={"learning_rate": 0.01}),
        # Everything that has a state of its own: momentum, a schedule, batch statistics, dropout, in evaluation too.
        "busy": Recipe(
            name="resnet18",
            model="own_networks:drawing_network",
            epochs=3,
            batch_size=64,
            learning_rate=0.05,
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-3,
            schedule="one-cycle",
            label_smoothing=0.1,
            flip="alternating",
            shift=2,
            precision="auto",
        ),
    }
    recipe = recipes.get(name) or recipes["busy"].model_copy(update={"model": name})
    return Training(recipe, seed=3, hardware=Hardware(CPU), validation=100)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    save_dataset(tiny_dataset(train=IMAGES), folder)
    return folder


@pytest.fixture(scope="module", params=["tutorial", "busy"])
def recipe(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def trained(folder: Path, dataset: Path, unfinished: Path, recipe: str) -> list[str]:
    """Train to the end in this process; what was said."""
    said: list[str] = []
    folder.mkdir(exist_ok=True)
    build_weights(folder, dataset, training(recipe), Monitor(said.append, checkpoint=Checkpoint(unfinished)))
    return said


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    trained(folder / "weights", dataset, folder / "unfinished", recipe)
    return folder / "weights"


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_training_ended_by_a_signal_goes_on_and_ends_with_the_same_bytes(
    by: signal.Signals, dataset: Path, recipe: str, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished", recipe)
    with started(TRAINING, *arguments) as process:
        while not (line := next_line(process)).isdigit() or int(line) < IMAGES:  # in the second epoch
            pass
        process.send_signal(by)
        output, complaint = process.communicate()
        assert process.returncode in ((1, -by) if by == signal.SIGINT else (-by,)), complaint
        said = "run the same command again to go on from there" in output
        assert said == (by != signal.SIGKILL)
    assert "training goes on from epoch 2" in trained(*arguments)[0]
    for name in ("cifar_net.pth", "weights.safetensors", "training.parquet"):
        assert (tmp_path / "weights" / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("network", ["Endless", "Waiting"])
def test_a_step_that_takes_too_long_is_given_up(
    by: signal.Signals, network: str, dataset: Path, tmp_path: Path
) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished", f"own_networks:{network}")
    with started(TRAINING, *arguments) as process:
        assert next_line(process) == "in a step"
        process.send_signal(by)
        output, complaint = process.communicate("go on\n")
    assert process.returncode in ((1, -by) if by == signal.SIGINT else (-by,)), complaint
    assert STOPPED_LATE in output


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_after_the_last_step_stops_the_run_all_the_same(by: signal.Signals, tmp_path: Path) -> None:
    with started(LATE, tmp_path) as process:
        assert next_line(process) == "saving weights"
        process.send_signal(by)
        output, complaint = process.communicate("go on\n")
    assert process.returncode in ((1, -by) if by == signal.SIGINT else (-by,)), complaint
    assert output == f"{STOPPED_LATE}\n"


# Checkpoints


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "unfinished")
    assert checkpoint.load(CPU) is None
    checkpoint.save({"tensor": torch.arange(3), "place": (1, 2)})
    found = checkpoint.load(CPU)
    assert found is not None
    assert torch.equal(found["tensor"], torch.arange(3))
    assert found["place"] == (1, 2)


@pytest.mark.parametrize("damage", ["a flipped bit", "a lost end", "nothing left"])
def test_a_checkpoint_with_other_bytes_is_not_gone_on_from(tmp_path: Path, damage: str) -> None:
    checkpoint = Checkpoint(tmp_path)
    checkpoint.save({"tensor": torch.zeros(100)})
    [path] = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"a flipped bit": bytes(content), "a lost end": content[:-1], "nothing left": b""}[damage])
    with pytest.raises(DamagedCheckpoint, match="its bytes are not those that were saved"):
        checkpoint.load(CPU)


# Signals


@pytest.fixture
def interrupting() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as it does in a shell's foreground."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupting")
def test_a_signal_that_is_ignored_as_by_what_a_shell_runs_in_its_background_stays_so() -> None:
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred_signals() as stop_request:
            signal.raise_signal(signal.SIGINT)
            assert not stop_request.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, usual)


def test_a_signal_is_held_back_until_it_suits() -> None:
    with deferred_signals() as stop_request:
        assert not stop_request.asked
        signal.raise_signal(signal.SIGINT)
        assert stop_request.asked
        with pytest.raises(KeyboardInterrupt):
            stop_request.act()
    with pytest.raises(KeyboardInterrupt):  # the handlers are back in their places
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("network", "said"), [("slow_to_make", "is made"), ("SlowToPrepare", "is shown images")])
def test_before_the_first_step_a_signal_takes_effect_at_once(
    by: signal.Signals, network: str, said: str, dataset: Path, tmp_path: Path
) -> None:
    with started(
        TRAINING, tmp_path / "weights", dataset, tmp_path / "unfinished", f"own_networks:{network}"
    ) as process:
        assert next_line(process) == said
        process.send_signal(by)
        output, complaint = process.communicate()
    assert process.returncode in ((1, -by) if by == signal.SIGINT else (-by,)), complaint
    assert output == ""


@pytest.mark.usefixtures("interrupting")
def test_a_second_signal_takes_effect_at_once() -> None:
    with deferred_signals():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_a_signal_nothing_happens() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with deferred_signals() as stop_request:
        stop_request.act()
    assert signal.getsignal(signal.SIGTERM) is before
