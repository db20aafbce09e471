"""Waiting for a server or a process."""

import time
from collections.abc import Callable

import httpx


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: waited {timeout_s} s in vain"
        time.sleep(0.1)
