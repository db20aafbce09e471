"""Real processes that are killed: at a given moment, or before each of their steps in turn."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Timer

PATIENCE_S = 180
STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink")
TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# Put before a script, prints the library's log lines.
PRINT_LOG = """
import logging, sys
from tasks.core.runtime.logs import logger
logger.addHandler(logging.StreamHandler(sys.stdout))
logger.setLevel(logging.INFO)
"""

Process = subprocess.Popen[str]


def environment() -> dict[str, str]:
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def python_process(code: str, *arguments: object, **variables: object) -> Iterator[Process]:
    """A Python process that runs `code`; it is killed at the end of the block, or after PATIENCE_S."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {name: str(value) for name, value in variables.items()},
    )
    patience = Timer(PATIENCE_S, process.kill)  # a test that waits for it in vain then fails
    patience.start()
    try:
        yield process
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


def next_line(process: Process) -> str:
    """The next line that a process prints; fails with its errors if it ends without one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return line.rstrip("\n")


def skip_to_line(process: Process, *beginnings: str) -> str:
    """The next line with one of these beginnings."""
    while not (line := next_line(process)).startswith(beginnings):
        pass
    return line


def resume(process: Process) -> list[str]:
    """Send a line to a process that waits for one, and wait for its successful end; the lines that it still prints."""
    output, errors = process.communicate("go on\n")
    assert process.returncode == 0, errors
    return output.splitlines()


def kill(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_at_every_step(code: str, template: Path, folder: Path) -> list[Path]:
    """Copies of the folder `template`, in each of which `act(root)` was killed one step later than in the one before.

    `code` defines `act`. A step is any change in `root`: opening a file to write, creating, renaming, removing. A sync
    is no step, as it changes nothing that a killed process leaves. In the last copy `act` was not killed.
    """
    folder.mkdir()
    command = [sys.executable, __file__, code, str(template), str(folder)]
    finished = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr
    copies = sorted(folder.iterdir())
    assert len(copies) > 2
    return copies


def kill_before_step(number: int, root: str) -> None:
    steps = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        opened = event == "open" and str(arguments[0]).startswith(root) and int(str(arguments[2])) & TO_WRITE
        if opened or event in STEPS:
            steps += 1
            if steps == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def kill_before_request(number: int) -> None:
    """The same for a bucket: a step is any request that does not only read."""
    from aiobotocore.client import AioBaseClient  # which most tests do without

    steps, call = 0, AioBaseClient._make_api_call

    async def call_or_be_killed(self: AioBaseClient, operation: str, parameters: object) -> object:
        nonlocal steps
        if not operation.startswith(("Get", "Head", "List")):
            steps += 1
            if steps == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return await call(self, operation, parameters)

    AioBaseClient._make_api_call = call_or_be_killed


def _main(code: str, template: Path, folder: Path) -> None:
    """Fork a process for each step, so that the imports run once."""
    names: dict[str, Callable[[Path], None]] = {}
    exec(code, names)
    for number in count():  # round 0 has no kill: it runs the late imports
        root = folder / f"{number:04}"
        if template.exists():
            shutil.copytree(template, root)
        if number == 0:
            names["act"](root)
            shutil.rmtree(root)
            continue
        process = os.fork()
        if process == 0:
            code_at_end = 1
            try:
                kill_before_step(number, str(root))
                names["act"](root)
                code_at_end = 0
            finally:
                if code_at_end:
                    sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(code_at_end)
        status = os.waitpid(process, 0)[1]
        root.mkdir(exist_ok=True)
        if os.waitstatus_to_exitcode(status) == 0:
            return
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"step {number}"


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
