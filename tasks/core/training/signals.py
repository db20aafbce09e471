"""Ctrl-C and a worker's cancel: noted at once, and acted on when nothing is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any


@dataclass
class StopRequest:
    """A signal to stop that came meanwhile, if one did."""

    can_wait: bool = True  # or there is nothing that would be lost
    signal_number: int | None = None
    handlers: dict[int, Any] = field(default_factory=dict)

    @property
    def asked(self) -> bool:
        return self.signal_number is not None

    def note(self, number: int, _: FrameType | None) -> None:
        """Remember the first signal, if it can wait; a second one takes effect as if nobody had waited."""
        at_once = not self.can_wait or self.signal_number is not None
        self.signal_number = number
        if at_once:
            self.act()

    def act(self) -> None:
        """Let the signal that came take its usual effect."""
        self.restore()
        if self.signal_number is not None:
            signal.raise_signal(self.signal_number)

    def restore(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Hold SIGINT and SIGTERM back for this block; outside the main thread, which alone gets them, do nothing.

    One that is ignored, as Ctrl-C is by what a shell runs in its background, stays so.
    """
    stop_request = StopRequest()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                stop_request.handlers[number] = signal.signal(number, stop_request.note)
    try:
        yield stop_request
    finally:
        stop_request.restore()
