"""Training in worker processes: same losses, bit-for-bit resume, signals, deaths and errors."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import worker_jobs
from killing import PRINT_LOG, Process, environment, kill, next_line, python_process, wait_until
from tiny import CLASSES, save_dataset, tiny_dataset
from tiny_trainings import recipe, training

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.models.factory import init_network
from tasks.core.runtime.parquet import read_table
from tasks.core.training.distributed.launch import Worker, start_worker
from tasks.core.training.distributed.rank import train_in_worker
from tasks.core.training.distributed.worker import Ended
from tasks.core.training.monitor import Monitor, Progress
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Training

WORKERS = 3  # the sum of two gradients is the same in any order
IMAGES = 1_201  # 100 are held out; the last batch has 1 image, so two workers have none

TRAINING = f"""{PRINT_LOG}
from pathlib import Path
from tasks.core.errors import EnvironmentFailure
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tiny_trainings import recipe, training

folder, dataset, unfinished = map(Path, sys.argv[1:4])
folder.mkdir(exist_ok=True)
model = {{"model": sys.argv[4]}} if sys.argv[4:] else {{}}
own = recipe(epochs=4, learning_rate=0.003, batch_size=10, **model)
print("main module", flush=True)
monitor = Monitor(lambda progress: print(progress.images_done, flush=True), Checkpoint(unfinished))
try:
    build_weights(folder, dataset, training(own, seed=3, validation=100, processes={WORKERS}), monitor)
except EnvironmentFailure as error:
    print(error)
    raise SystemExit(error.exit_code)
print("done")
"""
FILES = ("cifar_net.pth", "weights.safetensors", "training.parquet")


def distributed(processes: int, **changes: object) -> Training:
    own = recipe(**{"epochs": 4, "learning_rate": 0.003, "batch_size": 10} | changes)
    return training(own, seed=3, validation=100, processes=processes)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose brightness depends on the class: losses on pure noise would diverge by rounding."""
    noise = tiny_dataset(train=IMAGES)
    brightness = noise.train_labels[:, None, None, None] * np.uint8(15)
    folder = tmp_path_factory.mktemp("dataset")
    save_dataset(replace(noise, train_images=noise.train_images // 8 * 7 + brightness), folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a distributed training without an interruption, started by a script without a main guard."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    script = folder / "script.py"
    script.write_text(TRAINING)
    command = [sys.executable, script, folder, dataset, folder / "unfinished"]
    process = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (process.stdout.endswith("done\n"), process.stderr) == (True, "")
    assert process.stdout.count("main module") == 1
    return folder


def worker_pids(process: Process) -> list[int]:
    """The process ids, by rank."""
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    return sorted(map(int, listed.split()))


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for_line(process: Process, is_wanted: Callable[[str], bool]) -> None:
    while not is_wanted(next_line(process)):
        pass


def test_workers_have_the_losses_of_one_process(dataset: Path, uninterrupted: Path, tmp_path: Path) -> None:
    build_weights(tmp_path, dataset, distributed(1), Monitor())

    one, three = (read_table(folder / "training.parquet") for folder in (tmp_path, uninterrupted))
    assert one["running_loss"].max() - one["running_loss"].min() > 0.1  # else equal losses would prove little
    for name in ("step", "running_loss", "validation_loss"):
        assert three[name].tolist() == pytest.approx(one[name].tolist(), abs=1e-5), name


def test_a_training_resumes_bit_for_bit_after_a_death_and_after_ctrl_c(
    dataset: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished")

    with python_process(TRAINING, *arguments) as process:
        wait_for_line(process, lambda _: (tmp_path / "unfinished" / "checkpoint.pt").exists())
        workers = worker_pids(process)
        os.kill(workers[1], signal.SIGKILL)
        output, stderr = process.communicate()
        assert (process.returncode, stderr) == (1, "")
    assert output.splitlines()[-1] == (
        "training: worker 2 of 3 was killed by SIGKILL; run the same command again to resume from the last checkpoint"
    )
    assert not any(map(is_running, workers))

    with python_process(TRAINING, *arguments) as process:
        wait_for_line(process, str.isdigit)
        workers = worker_pids(process)
        process.send_signal(signal.SIGINT)
        output, stderr = process.communicate()
        assert process.returncode in (1, -signal.SIGINT), stderr
    assert len(workers) == WORKERS
    assert not any(map(is_running, workers))

    with python_process(TRAINING, *arguments) as process:
        output, stderr = process.communicate()
        assert (output.endswith("done\n"), stderr) == (True, "")
    assert "train: resuming from epoch" in output
    for name in FILES:
        assert (tmp_path / "weights" / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_slow_steps_make_small_chunks_and_do_not_change_the_weights(dataset: Path, tmp_path: Path) -> None:
    shown: dict[str, list[Progress]] = {"dropout_network": [], "slow_dropout_network": []}
    for name, progress in shown.items():
        (tmp_path / name).mkdir()
        own = distributed(2, model=f"custom_networks:{name}", epochs=1, steps=20)
        build_weights(tmp_path / name, dataset, own, Monitor(progress.append))

    assert len(shown["slow_dropout_network"]) > 2  # a chunk may have all 20 steps
    quick, slow = (torch.load(tmp_path / name / "cifar_net.pth") for name in shown)
    assert all(torch.equal(quick[name], slow[name]) for name in quick)


def test_an_expected_error_is_the_same_from_workers(dataset: Path, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    own = distributed(2)
    diverging = replace(own, recipe=own.recipe.model_copy(update={"learning_rate": 1e30}))
    with pytest.raises(InputError) as caught:
        build_weights(tmp_path, dataset, diverging, Monitor())
    assert str(caught.value).startswith("training: expected a finite loss, got ")
    assert not list(tmp_path.iterdir())
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers


def test_an_error_in_a_custom_network_is_the_same_from_workers(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="custom_networks:Failing: expected a network that trains"):
        build_weights(tmp_path, dataset, distributed(2, model="custom_networks:Failing"), Monitor())


def test_weights_that_no_step_uses_stay_unchanged(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build_weights(tmp_path, dataset, distributed(2, model="custom_networks:HalfUsed", epochs=1), Monitor())
    initial = init_network("custom_networks:HalfUsed", len(CLASSES), seed=3).state_dict()
    weights = torch.load(tmp_path / "cifar_net.pth")
    unchanged = {name for name in initial if torch.equal(weights[name], initial[name])}
    assert unchanged == {"unused.weight", "unused.bias"}
    assert capfd.readouterr() == ("", "")


def test_no_worker_gets_an_empty_batch_and_torch_prints_no_warnings(
    dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = distributed(2, model="custom_networks:Counting", epochs=1, batch_size=100)
    build_weights(tmp_path, dataset, own, Monitor())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_workers_at_once(by: signal.Signals, dataset: Path, tmp_path: Path) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished", "custom_networks:Stuck")
    with python_process(TRAINING, *arguments) as process:
        wait_for_line(process, lambda line: line == "in a step")
        workers = worker_pids(process)
        assert len(workers) == WORKERS
        process.send_signal(by)
        _, stderr = process.communicate()
        assert process.returncode in ((1, -by) if by == signal.SIGINT else (-by,)), stderr
    wait_until(lambda: not any(map(is_running, workers)))


def test_workers_exit_when_their_parent_is_killed(dataset: Path, tmp_path: Path) -> None:
    arguments = (tmp_path / "weights", dataset, tmp_path / "unfinished")
    with python_process(TRAINING, *arguments) as process:
        wait_for_line(process, lambda line: line.startswith("[1, "))
        workers = worker_pids(process)
        assert len(workers) == WORKERS
        kill(process)
        wait_until(lambda: not any(map(is_running, workers)))


def test_a_worker_that_dies_before_the_first_step_ends_training(dataset: Path, tmp_path: Path) -> None:
    with python_process(TRAINING, tmp_path, dataset, tmp_path / "unfinished") as process:
        wait_until(lambda: len(worker_pids(process)) == WORKERS)
        os.kill(worker_pids(process)[1], signal.SIGKILL)
        output, stderr = process.communicate()
    assert (process.returncode, stderr) == (1, "")
    assert output.splitlines()[1].startswith("training: worker 2 of 3 was killed by SIGKILL")


# One worker


@contextmanager
def working(job: Callable[..., None]) -> Iterator[Worker]:
    """A worker that does a job, named the first of two."""
    worker = start_worker("worker 1 of 2")
    try:
        worker.send(job)
        yield worker
    finally:
        worker.process.kill()
        worker.process.wait()
        worker.channel.close()


def test_a_worker_stays_after_its_job_until_the_parent_lets_it_go() -> None:
    with working(worker_jobs.log_a_line) as worker:
        assert [worker.channel.recv(), worker.channel.recv()] == ["a line", Ended()]
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(0.3)
        worker.channel.close()
        worker.process.wait()


def test_a_worker_without_a_parent_exits_silently(capfd: pytest.CaptureFixture[str]) -> None:
    worker = start_worker("worker 1 of 2")
    worker.channel.close()
    worker.process.wait()
    assert capfd.readouterr() == ("", "")


def test_a_worker_with_other_code_than_the_parent_does_not_train(dataset: Path, tmp_path: Path) -> None:
    other = {"tasks/core/models/tutorial_net.py: Net": "0123456789ab"}
    with working(partial(train_in_worker, tmp_path, dataset, distributed(2), None, other, 1, 0, 0)) as worker:
        error = worker.channel.recv().error
    assert type(error) is EnvironmentFailure
    assert str(error).endswith(" changed since the run began; run again")
    assert not list(tmp_path.iterdir())


def test_an_expected_error_keeps_its_class_and_message() -> None:
    with working(worker_jobs.raise_an_expected_error) as worker:
        error = worker.channel.recv().error
    assert (type(error), str(error)) == (InputError, "training: expected this, got that; try something else")


def test_an_unexpected_error_is_one_line_with_its_traceback() -> None:
    with working(worker_jobs.raise_an_unexpected_error) as worker:
        ended = worker.channel.recv()
    expected = "training: worker 1 of 2 failed by ValueError: the first line"
    assert (type(ended.error), str(ended.error)) == (EnvironmentFailure, expected)
    assert "raise_an_unexpected_error" in ended.traceback
    assert ended.traceback.endswith("ValueError: the first line\nand another\n")


def test_signals_to_a_worker_itself_are_ignored() -> None:
    """Service managers send a signal to all processes; the parent ends its workers."""
    with working(worker_jobs.signal_itself) as worker:
        assert [worker.channel.recv(), worker.channel.recv()] == ["a line", Ended()]


@pytest.mark.parametrize("job", [worker_jobs.wait_for_ever, worker_jobs.log_for_ever])
def test_a_busy_worker_exits_when_its_parent_is_gone(
    job: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    with working(job) as worker:
        worker.channel.recv()
        worker.channel.close()
        assert worker.process.wait() == 1
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_cannot_send_exits_silently(capfd: pytest.CaptureFixture[str]) -> None:
    with working(worker_jobs.log_for_ever) as worker:
        worker.channel.recv()
        with socket.socket(fileno=os.dup(worker.channel.fileno())) as end:
            end.shutdown(socket.SHUT_RD)  # now sending fails, receiving does not
        assert worker.process.wait() == 1
    assert capfd.readouterr() == ("", "")
