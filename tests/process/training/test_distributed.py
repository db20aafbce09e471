"""Training in three processes: the losses of one, whoever is killed or interrupted; what a worker tells and obeys."""

import os
import pickle
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Listener
from pathlib import Path

import numpy as np
import parts
import pytest
import torch
from killing import Process, next_line, started, wait_until
from tiny import CLASSES, tiny_dataset

from tasks.core.data.dataset import save_dataset
from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.models.factory import init_network
from tasks.core.recipes import RECIPES
from tasks.core.runtime.device import Hardware
from tasks.core.runtime.parquet import read_table
from tasks.core.training.distributed.launch import Part
from tasks.core.training.distributed.worker import Begun, Ended, Line, ParentConnection
from tasks.core.training.monitor import Monitor, Progress
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Training

CPU = torch.device("cpu")
WORKERS = 3  # of two, in whatever order they add up gradients, the sums are the same
IMAGES = 1_201  # 100 of them are held out, and 1 is left over in the last batch, which all workers but one go without

TRAINING = """
import sys
from pathlib import Path
from tasks.core.errors import EnvironmentFailure
from tasks.core.training.distributed import launch
from tasks.core.training.train import build_weights
from tasks.core.training.monitor import monitoring
from test_together import WORKERS, training

folder, dataset, unfinished = map(Path, sys.argv[1:4])
folder.mkdir(exist_ok=True)
model = sys.argv[4:]
together.PATIENCE_S = {"cpu": 0.1 if model else 60}
say = lambda words: print(words, flush=True)
with monitoring(say, unfinished, say) as watch:
    try:
        build_weights(folder, dataset, training(WORKERS, *model), watch)
    except EnvironmentFailure as error:
        print(error)
        raise SystemExit(error.exit_code)
print("done")
"""
FILES = ("cifar_net.pth", "weights.safetensors", "training.parquet")


def training(
    workers: int, model: str = RECIPES["tutorial"].model, epochs: int = 4, learning_rate: float = 0.003
) -> Training:
    own = {"model": model, "epochs": epochs, "learning_rate": learning_rate, "batch_size": 10}
    recipe = RECIPES["tutorial"].model_copy(update=own)
    return Training(recipe, seed=3, hardware=Hardware(CPU, workers), validation=100)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that tell their classes by their brightness: what is learned from noise drifts apart by nature."""
    noise = tiny_dataset(train=IMAGES)
    brightness = noise.train_labels[:, None, None, None] * np.uint8(15)
    folder = tmp_path_factory.mktemp("dataset")
    save_dataset(replace(noise, train_images=noise.train_images // 8 * 7 + brightness), folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What workers make of it whom nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with started(TRAINING, folder, dataset, folder / "unfinished") as process:
        output, complaint = process.communicate()
        assert (output.endswith("done\n"), complaint) == (True, "")
    return folder


def workers_of(process: Process) -> list[int]:
    """The process ids, by rank."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    return sorted(map(int, listed.split()))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_have_the_losses_of_one_process(dataset: Path, undisturbed: Path, tmp_path: Path) -> None:
    build_weights(tmp_path, dataset, training(workers=1), Monitor(lambda _: None))

    one, three = (read_table(folder / "training.parquet") for folder in (tmp_path, undisturbed))
    assert one["running_loss"].max() - one["running_loss"].min() > 0.1  # else equal losses would say little
    for name in ("step", "running_loss", "validation_loss"):
        assert three[name].tolist() == pytest.approx(one[name].tolist(), abs=1e-5), name


def test_however_training_is_ended_the_next_one_goes_on_and_the_last_has_the_same_bytes(
    dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished")

    def until(said: Callable[[str], bool]) -> None:
        while not said(next_line(process)):
            pass

    with started(TRAINING, *arguments) as process:
        until(lambda _: (tmp_path / "unfinished" / "checkpoint.pt").exists())
        workers = workers_of(process)
        os.kill(workers[1], signal.SIGKILL)
        output, complaint = process.communicate()
        assert (process.returncode, complaint) == (1, "")
    assert output.splitlines()[-1] == (
        "training: worker 2 of 3 was killed by SIGKILL; run the same command again to go on from the last checkpoint"
    )
    assert not any(map(is_running, workers))

    with started(TRAINING, *arguments) as process:
        until(lambda line: line.startswith("training goes on from epoch"))
        workers = workers_of(process)
        process.send_signal(signal.SIGINT)
        output, complaint = process.communicate()
        assert process.returncode in (1, -signal.SIGINT), complaint
    assert output.splitlines()[-1].startswith("training stops at epoch")
    assert len(workers) == WORKERS
    assert not any(map(is_running, workers))

    with started(TRAINING, *arguments) as process:
        output, complaint = process.communicate()
        assert (output.endswith("done\n"), complaint) == (True, "")
    assert "training goes on from epoch" in output
    for name in FILES:
        assert (tmp_path / "weights" / name).read_bytes() == (undisturbed / name).read_bytes()


def test_the_longer_steps_take_the_fewer_are_taken_at_once_and_what_a_network_draws_is_the_same(
    dataset: Path, tmp_path: Path
) -> None:
    shown: dict[str, list[Progress]] = {"dropout_network": [], "slow_dropout_network": []}
    for name, progress in shown.items():
        own = training(2, f"own_networks:{name}", epochs=1)
        few = replace(own, recipe=own.recipe.model_copy(update={"steps": 20}))
        (tmp_path / name).mkdir()
        build_weights(tmp_path / name, dataset, few, Monitor(lambda _: None, progress.append))

    assert len(shown["slow_dropout_network"]) > 2  # all 20 steps could be taken at once
    quick, slow = (torch.load(tmp_path / name / "cifar_net.pth") for name in shown)
    assert all(torch.equal(quick[name], slow[name]) for name in quick)


def test_an_error_that_training_expects_is_the_same_from_workers(dataset: Path, tmp_path: Path) -> None:
    usual = [signal.getsignal(number) for number in signal.valid_signals()]
    with pytest.raises(InputError) as caught:
        build_weights(tmp_path, dataset, training(workers=2, learning_rate=1e30), Monitor(lambda _: None))
    assert str(caught.value).startswith("training: expected a finite loss, got ")
    assert not list(tmp_path.iterdir())
    assert [signal.getsignal(number) for number in signal.valid_signals()] == usual


def test_weights_that_no_step_uses_are_left_alone(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build_weights(tmp_path, dataset, training(2, "own_networks:HalfUsed", epochs=1), Monitor(lambda _: None))
    first = init_network("own_networks:HalfUsed", len(CLASSES), seed=3).state_dict()
    weights = torch.load(tmp_path / "cifar_net.pth")
    assert {name for name in first if torch.equal(weights[name], first[name])} == {"unused.weight", "unused.bias"}
    assert capfd.readouterr() == ("", "")


def test_a_network_that_uses_all_of_its_weights_says_nothing_of_them(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It need not take no images at all either, where a last batch has one and the workers are two."""
    own = training(2, "own_networks:Counting", epochs=1)
    few = replace(own, recipe=own.recipe.model_copy(update={"batch_size": 100}))
    build_weights(tmp_path, dataset, few, Monitor(lambda _: None))
    assert capfd.readouterr() == ("", "")


def test_workers_are_told_their_part_wherever_temporary_files_are(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ("far away" * 12)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("far away" * 12)))
    with pytest.raises(InputError, match="own_networks:Failing: expected it to be trained"):
        build_weights(tmp_path, dataset, training(2, "own_networks:Failing"), Monitor(lambda _: None))


def test_workers_that_are_told_to_stop_in_the_middle_of_a_long_step_are_not_waited_for(
    dataset: Path, tmp_path: Path
) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished", "own_networks:Stuck")
    with started(TRAINING, *arguments) as process:
        assert next_line(process) == "in a step"
        workers = workers_of(process)
        process.send_signal(signal.SIGTERM)
        output, complaint = process.communicate()
        assert (process.returncode, complaint) == (-signal.SIGTERM, "")
    assert "training stops without what is under way; run the same command again" in output
    assert not any(map(is_running, workers))


def test_a_worker_that_dies_before_it_is_heard_of_ends_training(dataset: Path, tmp_path: Path) -> None:
    with started(TRAINING, tmp_path, dataset, tmp_path / "unfinished") as process:
        wait_until(lambda: len(workers_of(process)) == WORKERS)
        os.kill(workers_of(process)[1], signal.SIGKILL)
        output, complaint = process.communicate()
    assert (process.returncode, complaint) == (1, "")
    assert output.startswith("training: worker 2 of 3 was killed by SIGKILL")


# One worker, started by the test

WORKER = "import sys; from tasks.core.training.distributed.worker import work; work(sys.argv[1])"


@contextmanager
def working(part: Callable[[ParentConnection], None], folder: Path) -> Iterator[tuple[Process, Line]]:
    """The first of two workers, sent to do a part, and the line to it."""
    with (
        Listener(str(folder / "workers"), "AF_UNIX") as listener,
        started(WORKER, folder / "workers", RANK=0, WORLD_SIZE=2) as process,
        listener.accept() as line,
    ):
        line.send_bytes(pickle.dumps(part))
        yield process, line


def test_a_worker_that_ended_well_stays_until_it_is_let_go(tmp_path: Path) -> None:
    with working(parts.end_well, tmp_path) as (process, line):
        assert [line.recv(), line.recv()] == ["a line", Ended()]
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        line.close()
        assert process.wait() == 0


def test_a_worker_that_is_let_go_before_it_is_told_its_part_leaves_without_a_word(tmp_path: Path) -> None:
    address = tmp_path / "workers"
    with Listener(str(address), "AF_UNIX") as listener, started(WORKER, address, RANK=0) as process:
        listener.accept().close()
        assert (*process.communicate(), process.returncode) == ("", "", 1)
    with started(WORKER, address, RANK=0) as late:
        assert (*late.communicate(), late.returncode) == ("", "", 1)


def test_a_worker_that_finds_other_code_than_the_run_began_with_does_not_train(dataset: Path, tmp_path: Path) -> None:
    other = {"tasks/core/models/tutorial_net.py: Net": "0123456789ab"}
    part = Part(tmp_path, dataset, training(2), other, unfinished=None, shows=False, threads=1)
    with working(part, tmp_path) as (_, line):
        error = line.recv().error
    assert (type(error), str(error).endswith(" was changed since the run began; run again")) == (
        EnvironmentFailure,
        True,
    )
    assert not (tmp_path / "cifar_net.pth").exists()


def test_an_expected_error_keeps_its_class_and_its_words(tmp_path: Path) -> None:
    with working(parts.meet_an_expected_error, tmp_path) as (process, line):
        error = line.recv().error
        assert (type(error), str(error)) == (InputError, "training: expected this, got that; try something else")
        line.close()
        assert process.wait() == 1


def test_an_unexpected_error_is_one_line_and_its_traceback_comes_along(tmp_path: Path) -> None:
    with working(parts.meet_an_unexpected_error, tmp_path) as (_, line):
        ended = line.recv()
        assert (type(ended.error), str(ended.error)) == (
            EnvironmentFailure,
            "training: worker 1 of 2 failed by ValueError: what is wrong",
        )
        assert "meet_an_unexpected_error" in ended.traceback
        assert ended.traceback.endswith("ValueError: what is wrong\nand more of it\n")


def test_no_signal_ends_a_worker_before_it_has_stopped(tmp_path: Path) -> None:
    with working(parts.be_signalled_until_all_stop, tmp_path) as (process, line):
        assert [line.recv() for _ in range(3)] == [Begun(), "asked: True", Ended(stopped=True)]
        line.close()
        assert process.wait() == 0


def test_a_worker_hears_of_the_signals_that_the_starting_process_gets(tmp_path: Path) -> None:
    with working(parts.wait_for_a_signal_from_the_starting_process, tmp_path) as (_, line):
        assert line.recv() == Begun()
        line.send(signal.SIGINT)
        assert [line.recv(), line.recv()] == [f"asked by {signal.SIGINT.value}", Ended()]


def test_a_worker_that_hears_no_signal_leaves_when_it_is_let_go(tmp_path: Path) -> None:
    with working(parts.wait_for_ever, tmp_path) as (process, line):
        assert line.recv() == str(process.pid)
        line.close()
        assert process.wait() == 1


def test_a_worker_that_speaks_while_it_is_let_go_leaves_without_a_word(tmp_path: Path) -> None:
    with working(parts.speak_for_ever, tmp_path) as (process, line):
        assert line.recv() == "a line"
        with socket.socket(fileno=os.dup(line.fileno())) as end:
            end.shutdown(socket.SHUT_RD)  # so that it is speaking that fails, and listening does not
        assert (*process.communicate(), process.returncode) == ("", "", 1)
