"""A worker process: it does one job, and reports to its parent process over a pipe."""

import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from tasks.core.errors import CifarFlowError, EnvironmentFailure

Channel: TypeAlias = "Connection[Any, Any]"


@dataclass(frozen=True)
class Ended:
    """A worker's last message: its job finished or failed; an unexpected error has a traceback."""

    error: CifarFlowError | None = None
    traceback: str = ""


class ParentConnection:
    """The worker's end of the pipe; the worker exits as soon as the parent is gone."""

    def __init__(self, file_descriptor: int) -> None:
        self._channel: Channel = Connection(file_descriptor)

    def send(self, message: object) -> None:
        try:
            self._channel.send(message)
        except OSError:
            os._exit(1)

    def receive(self) -> Any:
        try:
            return self._channel.recv()
        except (EOFError, OSError):
            os._exit(1)


def main(file_descriptor: int, name: str) -> None:
    """Do the job that the parent sends, a function of the connection, and report how it ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent gets these too, and kills its workers
    parent = ParentConnection(file_descriptor)
    job = parent.receive()
    # The parent sends nothing else: this returns only when the parent is gone.
    threading.Thread(target=parent.receive, daemon=True).start()
    ended = Ended()
    try:
        job(parent)
    except CifarFlowError as error:
        ended = Ended(error)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        message = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        ended = Ended(EnvironmentFailure(f"training: {name} failed by {message}"), traceback.format_exc())
    sys.stdout.flush()
    parent.send(ended)
    threading.Event().wait()  # until killed: an earlier exit would break the connections of workers that still train
