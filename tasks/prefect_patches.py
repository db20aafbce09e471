"""A run that is cancelled while training holds SIGTERM back, for as long as it saves, is cancelled all the same."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect._internal import control_listener


@contextmanager
def acknowledged_cancels() -> Iterator[None]:
    """Have Prefect acknowledge a worker's cancel in this block though the handler of SIGTERM is not its own.

    It would take the SIGTERM that follows for a crash. Private to Prefect (3.8.8).
    """
    listener: Any = control_listener
    usual = listener.commit_control_intent_and_ack

    def commit_and_acknowledge(
        commit_intent: Callable[[], None],
        clear_intent: Callable[[], None],
        send_ack: Callable[[], None],
        trigger_cancel: Callable[[], None] | None = None,
    ) -> bool:
        commit_intent()
        try:
            send_ack()
        except OSError:  # the worker is gone
            clear_intent()
            return False
        if trigger_cancel:
            trigger_cancel()
        return True

    listener.commit_control_intent_and_ack = commit_and_acknowledge
    try:
        yield
    finally:
        listener.commit_control_intent_and_ack = usual
