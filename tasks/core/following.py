"""Showing how far work is from a thread of its own, so that who is slow to take it holds nothing up."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Note = TypeVar("Note")
PATIENCE_S = 0.5  # for the last note, when the work itself is done


@contextmanager
def following(
    show: Callable[[Note], None], give_up: Callable[[Exception], None], every_s: float
) -> Iterator[Callable[[Note], None]]:
    """What takes notes of how far work is; `show` gets the newest one every few seconds, and the last.

    An error of `show` is for `give_up`, and ends it.
    """
    newest: deque[Note] = deque(maxlen=1)
    ended = threading.Event()

    def follow() -> None:
        is_last = False
        try:
            while not is_last:
                is_last = ended.wait(every_s)
                if newest:
                    show(newest.pop())
        except Exception as error:  # noqa: BLE001 - it is passed on
            give_up(error)

    context = contextvars.copy_context()  # where Prefect keeps which run this is
    thread = threading.Thread(target=context.run, args=[follow], name="following", daemon=True)
    thread.start()
    try:
        yield newest.append
    finally:
        ended.set()
        thread.join(PATIENCE_S)
