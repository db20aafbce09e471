"""Training in several processes, each with a device and a share of every batch.

torchrun's elastic launch starts and ends them; what they say comes over a line that each has of its own.
"""

import logging
import os
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Thread

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from tasks.core.data.dataset import load_dataset
from tasks.core.errors import EnvironmentFailure
from tasks.core.models.factory import model_code_digests
from tasks.core.runtime.core_code import code_digests
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.distributed.process_group import ProcessGroup
from tasks.core.training.distributed.rank import train_rank
from tasks.core.training.distributed.worker import Begun, Ended, Line, ParentConnection, in_words
from tasks.core.training.monitor import STOPPED_LATE, STOPS, Monitor, Progress
from tasks.core.training.trainer import Training

# A process of its own program, unlike a spawned one, does not run the starting process's main module again.
WORKER = """
import os, sys
address, *sys.path = sys.argv[1:]
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings advise what a user cannot set
from tasks.core.training.distributed.worker import work
work(address)
"""
POLL_S = 0.1
# How long workers that were told to stop are waited for: those on a CPU hear of it between layers, then save.
PATIENCE_S = {"cpu": 1.2, "cuda": 10.0}
LONGEST_FOLDER = 50  # in bytes: a socket's whole address may have 100 or so
GO_ON = "run the same command again to go on from the last checkpoint"


def train_distributed(folder: Path, dataset: Path, training: Training, watch: Monitor) -> None:
    """Train in a process for each device; the first one's lines and progress go to `watch`.

    A signal that `watch` holds back is passed on, and takes its usual effect when all have stopped. A worker that dies
    ends the others, and is a WorldError.
    """
    watch.begin()  # from here on signals are for the workers
    shows, unfinished = watch.show is not None, watch.checkpoint.folder if watch.checkpoint else None
    part = Part(folder, dataset, training, _code(training), unfinished, shows, torch.get_num_threads())
    place = "/tmp" if len(os.fsencode(tempfile.gettempdir())) > LONGEST_FOLDER else None
    with (
        tempfile.TemporaryDirectory(prefix="cifar-flow-", dir=place) as private,
        socket.socket(socket.AF_UNIX) as server,
    ):
        address = f"{private}/workers"  # in a folder that is closed to other users
        server.bind(address)
        server.listen(training.hardware.count)
        launch = _Launch(training.hardware.count, address)
        crew = _Crew(part, watch, server)
        launch.start()
        try:
            crew.follow(launch)
        finally:
            crew.let_go()
            launch.join()
    if watch.stop_request.asked:
        watch.stop_request.act()
    _refuse_failure(launch, crew, watch)


@dataclass(frozen=True)
class Part:
    """What each worker is sent to do."""

    folder: Path
    dataset: Path
    training: Training
    code: Mapping[str, str]
    unfinished: Path | None
    shows: bool
    threads: int

    def __call__(self, line: ParentConnection) -> None:
        if changed := sorted(dict(_code(self.training).items() ^ self.code.items())):
            raise EnvironmentFailure(f"training: code {changed[0]} was changed since the run began; run again")
        hardware, leads = self.training.hardware, line.rank == 0
        torch.set_num_threads(max(1, self.threads // hardware.count))
        device = _join(hardware.device, line.rank)
        line.begin()
        watch = Monitor(
            log=line.send if leads else lambda _: None,
            show=line.send if leads and self.shows else None,
            checkpoint=Checkpoint(self.unfinished) if self.unfinished else None,
            stop_request=line.asked,
        )
        training = replace(self.training, hardware=replace(hardware, device=device))
        train_rank(self.folder, load_dataset(self.dataset), training, watch, ProcessGroup(line.rank, hardware.count))


def _code(training: Training) -> dict[str, str]:
    """The code that trains, which each process reads by itself."""
    return code_digests(train_rank) | model_code_digests(training.recipe.model)


def _join(first: torch.device, rank: int) -> torch.device:
    """Wait until all processes are there; the device of this one."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)  # others need not hear of it
    if first.type != "cuda":
        dist.init_process_group("gloo")
        return first
    device = torch.device("cuda", (first.index or 0) + rank)
    torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
    return device


@dataclass
class _Crew:
    """The workers, as they are heard of."""

    part: Part
    watch: Monitor
    server: socket.socket
    lines: list[Line] = field(default_factory=list)
    begun: int = 0
    ended: list[Ended] = field(default_factory=list)
    broken: bool = False
    said_goodbye: bool = False

    def follow(self, launch: "_Launch") -> None:
        """Pass on what comes, both ways, until all have ended, or one in a way that the others cannot go on from.

        Workers that are told to stop and wait for each other in the middle of a step are not waited for.
        """
        told_at, is_late = 0.0, False
        patience_s = PATIENCE_S[self.part.training.hardware.device.type]
        while launch.is_alive() and not self._is_over() and not is_late:
            for ready in wait([self.server, *self.lines], POLL_S):
                if isinstance(ready, Connection):
                    self._hear(ready)
                else:
                    self._admit()
            if self.watch.stop_request.asked and not told_at:
                if self.begun < launch.count:
                    return  # nothing is trained yet
                self._pass_on(self.watch.stop_request.signal_number)
                told_at = time.monotonic()
            is_late = bool(told_at) and time.monotonic() - told_at > patience_s
        if not self.said_goodbye and (is_late or any(each.stopped for each in self.ended)):
            self.watch.log(STOPPED_LATE)

    def _is_over(self) -> bool:
        failed = self.broken or any(each.error for each in self.ended)
        return failed or len(self.ended) == self.part.training.hardware.count

    def _admit(self) -> None:
        line: Line = Connection(self.server.accept()[0].detach())
        self.lines.append(line)
        self._send(line, self.part)

    def _hear(self, line: Line) -> None:
        try:
            word = line.recv()
        except (EOFError, OSError):
            self.lines.remove(line)
            line.close()
            self.broken = True
            return
        match word:
            case Begun():
                self.begun += 1
            case str():
                self.said_goodbye = word.startswith(STOPS)
                self.watch.log(word)
            case Progress() if self.watch.show:
                self.watch.show(word)
            case Ended():
                self.ended.append(word)

    def _pass_on(self, number: int | None) -> None:
        for line in self.lines:
            self._send(line, number)

    def _send(self, line: Line, word: object) -> None:
        try:
            line.send(word)
        except OSError:  # it is dead, which is heard of next
            return

    def let_go(self) -> None:
        """Have all workers leave, whatever they are doing."""
        self.server.close()
        for line in self.lines:
            line.close()


class _Launch(Thread):
    """Elastic's launch, beside the main thread: there it would take the signals over."""

    def __init__(self, count: int, address: str) -> None:
        super().__init__(name="launch", daemon=True)
        self.count, self._address = count, address
        self.exit_codes: dict[int, int] = {}  # of those that failed, in that order
        self.error: Exception | None = None

    def run(self) -> None:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=self.count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            monitor_interval=POLL_S,
            logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
        )
        try:
            with _quiet():
                elastic_launch(config, sys.executable)("-c", WORKER, self._address, *sys.path)
        except ChildFailedError as error:
            self.exit_codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits
            self.error = error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep elastic's log to itself: all that matters of it is said in our words."""
    logger = logging.getLogger("torch.distributed.elastic")
    usual, nowhere = logger.propagate, logging.NullHandler()
    logger.propagate = False
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)
        logger.propagate = usual


def _refuse_failure(launch: _Launch, crew: _Crew, watch: Monitor) -> None:
    """Raise what broke first, which others may have been broken by: elastic ends them by SIGTERM."""
    for rank, code in launch.exit_codes.items():
        if code < 0 and code != -signal.SIGTERM:
            raise _death(rank, code, launch.count)
    for ended in crew.ended:
        if ended.error:
            if ended.traceback:
                watch.log(ended.traceback)
            raise ended.error
    if launch.error:
        raise launch.error
    for rank, code in launch.exit_codes.items():
        raise _death(rank, code, launch.count)
    if any(ended.stopped for ended in crew.ended):
        raise EnvironmentFailure(f"training: its workers were told to stop; {GO_ON}")


def _death(rank: int, code: int, count: int) -> EnvironmentFailure:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return EnvironmentFailure(f"training: {in_words(rank, count)} {how}; {GO_ON}")
