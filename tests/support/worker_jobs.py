"""Jobs for a worker in tests; they import no torch, so that a worker starts at once."""

import os
import signal
import time

from tasks.core.errors import InputError
from tasks.core.training.distributed.worker import ParentConnection


def log_a_line(parent: ParentConnection) -> None:
    parent.send("a line")


def raise_an_expected_error(_: ParentConnection) -> None:
    raise InputError("training", expected="this", got="that", advice="try something else")


def raise_an_unexpected_error(_: ParentConnection) -> None:
    raise ValueError("the first line\nand another")


def signal_itself(parent: ParentConnection) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    parent.send("a line")


def log_for_ever(parent: ParentConnection) -> None:
    while True:
        parent.send("a line")
        time.sleep(0.01)


def wait_for_ever(parent: ParentConnection) -> None:
    parent.send("waiting")
    while True:
        time.sleep(1)
