"""A worker's line to the process that started it: it holds from before torch is imported, and ends with either of both.

A worker that has ended stays until it is let go: leaving earlier, it would take its connections to the others along,
and they would report broken ones before what broke them.
"""

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from types import FrameType
from typing import Any, TypeAlias

from tasks.core.errors import CifarFlowError, EnvironmentFailure
from tasks.core.training.signals import StopRequest

Line: TypeAlias = "Connection[Any, Any]"


class Stopped(BaseException):
    """The worker stopped because it, or another one, was asked to."""


class Asked(StopRequest):
    """The wish that a worker stops. Its usual effect is for the starting process, so however often it comes, it is
    noted only.
    """

    def note(self, number: int, _: FrameType | None = None) -> None:
        self.signal_number = number

    def act(self) -> None:
        raise Stopped


@dataclass(frozen=True)
class Begun:
    """All workers are there."""


@dataclass(frozen=True)
class Ended:
    """How a worker's part ended: well, stopped, or by an error, which has a traceback if nobody expected it."""

    stopped: bool = False
    error: CifarFlowError | None = None
    traceback: str = ""


@dataclass
class ParentConnection:
    """This worker's end of the line."""

    connection: Line
    rank: int
    asked: Asked = field(default_factory=Asked)
    exit_code: int = 1

    def send(self, word: object) -> None:
        """Tell the starting process something; when it has let go, or is no more, leave at once."""
        try:
            self.connection.send(word)
        except OSError:
            os._exit(self.exit_code)

    def begin(self) -> None:
        """Say that all workers are there; from here on a signal, from whomever, has them stop at the same step."""
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.asked.note)
        self.send(Begun())

    def listen(self) -> None:
        """Note the signals that the starting process passes on; when it lets go, or is no more, leave at once.

        Nothing else ends a worker that waits for another one, which may be dead.
        """
        try:
            while True:
                self.asked.note(self.connection.recv())
        except (EOFError, OSError):
            os._exit(self.exit_code)


def work(address: str) -> None:
    """Be a worker: do the pickled part that is sent, and tell how it ended."""
    try:
        line = ParentConnection(Client(address), rank=int(os.environ["RANK"]))
        part = line.connection.recv_bytes()
    except (EOFError, OSError):  # it was let go before it began
        os._exit(1)
    threading.Thread(target=line.listen, daemon=True).start()
    ended = _ended(lambda: pickle.loads(part)(line), line)  # noqa: S301 - from the process that started this one
    sys.stdout.flush()
    line.exit_code = 1 if ended.error else 0
    line.send(ended)
    threading.Event().wait()


def _ended(part: Callable[[], None], line: ParentConnection) -> Ended:
    try:
        part()
    except Stopped:
        return Ended(stopped=True)
    except CifarFlowError as error:
        return Ended(error=error)
    except Exception as error:  # noqa: BLE001 - it is passed on
        words = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        worker = in_words(line.rank, int(os.environ["WORLD_SIZE"]))
        return Ended(
            error=EnvironmentFailure(f"training: {worker} failed by {words}"), traceback=traceback.format_exc()
        )
    return Ended()


def in_words(rank: int, count: int) -> str:
    return f"worker {rank + 1} of {count}"
