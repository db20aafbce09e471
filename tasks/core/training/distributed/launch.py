"""Training with one worker process a device: start the workers, follow them, end them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime.logs import logger
from tasks.core.training.distributed.rank import train_in_worker, training_code
from tasks.core.training.distributed.worker import Channel, Ended
from tasks.core.training.monitor import Monitor, Progress
from tasks.core.training.trainer import Training

# A program of its own, unlike multiprocessing's spawn, does not run the parent's main module again.
WORKER = """
import sys
file_descriptor, name, *sys.path = sys.argv[1:]
from tasks.core.training.distributed.worker import main
main(int(file_descriptor), name)
"""
SETTLE_S = 0.5  # until a worker's death is visible, which may have caused the error of another one
RESUME = "run the same command again to resume from the last checkpoint"


@dataclass(frozen=True)
class Worker:
    """A worker process and the parent's end of the pipe to it."""

    name: str
    process: subprocess.Popen[bytes]
    channel: Channel

    def send(self, message: object) -> None:
        with suppress(OSError):  # it is dead, which `receive` finds out
            self.channel.send(message)

    def receive(self) -> object:
        """The next message; raises EnvironmentFailure if the worker has died."""
        try:
            return self.channel.recv()
        except (EOFError, OSError):
            raise self.death() from None

    def death(self) -> EnvironmentFailure:
        """The error for a process that ended without a report."""
        code = self.process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return EnvironmentFailure(f"training: {self.name} {how}", advice=RESUME)


def train_distributed(folder: Path, dataset: Path, training: Training, monitor: Monitor) -> None:
    """Train with one worker a device; rank 0 writes the weights and the learning curve to `folder`.

    Log lines and progress come from rank 0. Ctrl-C and SIGTERM end the workers; training resumes from the checkpoint.
    """
    count, code = training.hardware.count, training_code(training)
    threads = max(1, torch.get_num_threads() // count)
    job = partial(train_in_worker, folder, dataset, training, monitor.checkpoint, code, threads)
    with _running_workers(count) as workers, socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        # The ranks find each other by the store; by default it would listen on every network.
        _store = TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach())
        for rank, worker in enumerate(workers):
            worker.send(partial(job, port, rank))
        _follow(workers, monitor)


@contextmanager
def _running_workers(count: int) -> Iterator[list[Worker]]:
    """Worker processes, by rank; none of them outlives this block."""
    workers: list[Worker] = []
    try:
        workers.extend(start_worker(f"worker {rank + 1} of {count}") for rank in range(count))
        yield workers
    finally:
        for worker in workers:
            worker.process.kill()
        for worker in workers:
            worker.process.wait()
            worker.channel.close()


def start_worker(name: str) -> Worker:
    """Start a worker that waits for its job."""
    loopback = next(interface for _, interface in socket.if_nameindex() if interface.startswith("lo"))
    environment = {
        "GLOO_SOCKET_IFNAME": loopback,  # closed to other machines
        "NCCL_SOCKET_IFNAME": loopback,
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # its warnings advise what a user cannot set
        **os.environ,
    }
    channel, workers_end = Pipe()
    with workers_end:
        descriptor = workers_end.fileno()
        command = [sys.executable, "-c", WORKER, str(descriptor), name, *sys.path]
        # In a session of its own, so that Ctrl-C reaches the parent only.
        process = subprocess.Popen(command, pass_fds=[descriptor], env=environment, start_new_session=True)
    return Worker(name, process, channel)


def _follow(workers: Sequence[Worker], monitor: Monitor) -> None:
    """Handle messages until all workers have ended; raise what ended one of them early."""
    running: dict[object, Worker] = {worker.channel: worker for worker in workers}
    while running:
        for channel in wait([worker.channel for worker in running.values()]):
            match message := running[channel].receive():
                case str():
                    logger.info(message)
                case Progress() if monitor.show:
                    monitor.show(message)
                case Ended():
                    _raise_failure(message, workers)
                    del running[channel]


def _raise_failure(ended: Ended, workers: Sequence[Worker]) -> None:
    """Raise a worker's error, or the death of another worker that may have caused it."""
    if ended.error is None:
        return
    time.sleep(SETTLE_S)
    for worker in workers:
        if worker.process.poll() is not None:
            raise worker.death()
    if ended.traceback:
        logger.error(ended.traceback)
    raise ended.error
