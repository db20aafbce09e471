"""A training that a signal ended resumes, and ends with the same bytes."""

import signal
from pathlib import Path

import pytest
from killing import PRINT_LOG, next_line, python_process
from log_lines import logged_lines
from tiny import save_dataset, tiny_dataset
from tiny_trainings import STATEFUL, recipe, training

from tasks.core.recipes import Recipe
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights

IMAGES = 1_100
RECIPES = {"tutorial": recipe(learning_rate=0.01), "stateful": STATEFUL}

TRAINING = f"""{PRINT_LOG}
from pathlib import Path
from tasks.core.recipes import Recipe
from tasks.core.training import monitor as monitors
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.train import build_weights
from tiny_trainings import training

monitors.CHECKPOINT_EVERY_S = 0  # after each chunk
monitors.PROGRESS_EVERY_S = 0
folder, dataset, unfinished = map(Path, sys.argv[1:4])
folder.mkdir(exist_ok=True)
own = training(Recipe.model_validate_json(sys.argv[4]), seed=3, validation=100)
monitor = monitors.Monitor(lambda progress: print(progress.images_done, flush=True), Checkpoint(unfinished))
build_weights(folder, dataset, own, monitor)
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    save_dataset(tiny_dataset(train=IMAGES), folder)
    return folder


@pytest.fixture(scope="module", params=["tutorial", "stateful"])
def own_recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def train_to_the_end(folder: Path, dataset: Path, unfinished: Path, own: Recipe) -> list[str]:
    """Train in this process; the log lines."""
    folder.mkdir(exist_ok=True)
    with logged_lines() as lines:
        build_weights(folder, dataset, training(own, 3, validation=100), Monitor(checkpoint=Checkpoint(unfinished)))
    return lines


@pytest.fixture(scope="module")
def uninterrupted(dataset: Path, own_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    train_to_the_end(folder / "weights", dataset, folder / "unfinished", own_recipe)
    return folder / "weights"


def is_ended_by(code: int, by: signal.Signals) -> bool:
    """Whether an exit code is that of a signal, or of an uncaught KeyboardInterrupt."""
    return code in ((1, -by) if by == signal.SIGINT else (-by,))


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_training_ended_by_a_signal_resumes_with_the_same_bytes(
    by: signal.Signals, dataset: Path, own_recipe: Recipe, uninterrupted: Path, tmp_path: Path
) -> None:
    folders = (tmp_path / "weights", dataset, tmp_path / "unfinished")
    with python_process(TRAINING, *folders, own_recipe.model_dump_json()) as process:
        while not (line := next_line(process)).isdigit() or int(line) < IMAGES:  # in the second epoch
            pass
        process.send_signal(by)
        _, stderr = process.communicate()
        assert is_ended_by(process.returncode, by), stderr
    assert train_to_the_end(*folders, own_recipe)[0].startswith("train: resuming from epoch 2")
    for name in ("cifar_net.pth", "weights.safetensors", "training.parquet"):
        assert (tmp_path / "weights" / name).read_bytes() == (uninterrupted / name).read_bytes()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_long_step_at_once(by: signal.Signals, dataset: Path, tmp_path: Path) -> None:
    own = recipe(model="custom_networks:Stuck").model_dump_json()
    with python_process(TRAINING, tmp_path / "weights", dataset, tmp_path / "unfinished", own) as process:
        while next_line(process) != "in a step":
            pass
        process.send_signal(by)
        _, stderr = process.communicate()
    assert is_ended_by(process.returncode, by), stderr
