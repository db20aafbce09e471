"""Parts that tests have a worker do; they need no torch, so that a worker starts at once."""

import os
import signal
import time

from tasks.core.errors import InputError
from tasks.core.training.distributed.worker import ParentConnection


def end_well(line: ParentConnection) -> None:
    line.send("a line")


def meet_an_expected_error(_: ParentConnection) -> None:
    raise InputError("training: expected this, got that; try something else")


def meet_an_unexpected_error(_: ParentConnection) -> None:
    raise ValueError("what is wrong\nand more of it")


def be_signalled_until_all_stop(line: ParentConnection) -> None:
    """What a service manager does that signals every process."""
    line.begin()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    line.send(f"asked: {line.asked.asked}")
    line.asked.act()


def wait_for_a_signal_from_the_starting_process(line: ParentConnection) -> None:
    line.begin()
    while not line.asked.asked:
        time.sleep(0.01)
    line.send(f"asked by {line.asked.signal_number}")


def speak_for_ever(line: ParentConnection) -> None:
    while True:
        line.send("a line")
        time.sleep(0.01)


def wait_for_ever(line: ParentConnection) -> None:
    line.send(str(os.getpid()))
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(1)
