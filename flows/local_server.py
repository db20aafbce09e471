"""A local Prefect server that lasts as long as a run, in place of Prefect's temporary one.

It starts while the heavy imports load. It ends with its parent, however that ends: it watches a pipe that only the
parent holds open. Prefect's temporary server hangs on Ctrl-C, and outlives SIGTERM and SIGKILL.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO

import httpx
from filelock import FileLock

from tasks.core.config import PROJECT, strip_credentials
from tasks.core.errors import EnvironmentFailure

STARTUP_TIMEOUT_S = 120
SHUTDOWN_TIMEOUT_S = 3
PATIENCE_S = 5
# Telemetry, which finds the database locked on a first start.
QUIET = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_UI_ENABLED": "false"}


@dataclass
class LocalServer:
    """A server process on a free loopback port."""

    url: str
    process: "subprocess.Popen[bytes]"
    output: IO[bytes]

    @classmethod
    def start(cls) -> "LocalServer":
        """Start the server without waiting for it; early requests queue at its open socket."""
        output = tempfile.TemporaryFile()  # noqa: SIM115 - it lasts as long as the server
        with socket.create_server(("127.0.0.1", 0)) as listener:
            # In its own session Ctrl-C does not reach the server: the run still has to report its last state.
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.local_server", str(listener.fileno())],
                cwd=PROJECT,  # the current folder may have another `flows` or `tasks`
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **QUIET},
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
            return cls(f"http://127.0.0.1:{listener.getsockname()[1]}/api", process, output)

    def wait_until_ready(self) -> None:
        """Return once the server answers; EnvironmentFailure with the last line of its output if it does not."""
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while self.process.poll() is None and (left_s := deadline - time.monotonic()) > 0:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=left_s, trust_env=False).is_success:
                    return
            time.sleep(0.05)
        self.output.seek(0)
        lines = self.output.read().decode(errors="replace").split("\n")
        raise EnvironmentFailure(
            "Prefect's server",
            expected=f"an answer within {STARTUP_TIMEOUT_S} s",
            got=next((line for line in reversed(lines) if line.strip()), "no output"),
            advice="run again, or run `prefect server start` and set PREFECT_API_URL",
        )

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def prefect_server() -> Iterator[Callable[[], None]]:
    """The server of the user's Prefect settings, or a local one for this block.

    It starts while the block does its own imports; the yielded function waits until it answers.
    """
    server = None if os.environ.get("PREFECT_API_URL") else LocalServer.start()
    if server:
        # Prefect's own exit hooks, which still send logs, run before this one.
        atexit.register(server.end)
    # Importing Prefect takes as long as the server's start, so both run at the same time.
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_UI_URL,
        Settings,
        temporary_settings,
    )

    settings = Settings()
    if server and (settings.api.url or not settings.server.ephemeral.enabled):
        server.end()  # a profile names another
        server = None
    if server is None:
        yield partial(_wait_for, settings.api.url) if settings.api.url else lambda: None
        return
    os.environ["PREFECT_API_URL"] = server.url  # for processes and threads that start later
    # Nobody watches this server for runs without a heartbeat, and it has no UI to link to.
    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_UI_URL: "", PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield server.wait_until_ready


def _wait_for(url: str) -> None:
    """Return once a configured server answers anything; EnvironmentFailure if it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            httpx.get(f"{url}/health", timeout=PATIENCE_S)
            return
        except (httpx.TransportError, httpx.InvalidURL) as error:
            if time.monotonic() > deadline:
                raise EnvironmentFailure(
                    "Prefect's server",
                    expected=f"an answer from {strip_credentials(url)}",
                    got=str(error) or type(error).__name__,
                    advice="start it (make ui), or unset PREFECT_API_URL",
                ) from None
            time.sleep(0.2)


def serve(descriptor: int) -> None:
    """Serve on an open socket until standard input ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    class OneAtATime(uvicorn.Server):
        """Servers that start at the same time on a new Prefect home would all create the same tables."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            home = get_current_settings().home
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / "cifar-flow-server.lock"):
                await super().startup(sockets)

    # Ephemeral: without the services that only a lasting server needs.
    app = partial(create_app, ephemeral=True, final=True)
    config = uvicorn.Config(app, factory=True, log_level="error", lifespan="on")
    OneAtATime(config).run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would garble the output of a server that fails
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SHUTDOWN_TIMEOUT_S)
    os._exit(0)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
