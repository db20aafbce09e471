"""Real processes that end badly: killed in the middle of something, or right before each of their steps in turn."""

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

Process = subprocess.Popen[str]


def environment() -> dict[str, str]:
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@contextmanager
def started(code: str, *arguments: object, **variables: object) -> Iterator[Process]:
    """A Python process that runs `code`, with environment variables; it outlives neither the block nor PATIENCE_S."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {name: str(value) for name, value in variables.items()},
    )
    patience = Timer(PATIENCE_S, process.kill)  # so that a test which waits for it in vain fails
    patience.start()
    try:
        yield process
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


def next_line(process: Process) -> str:
    """The next line that a process prints; its complaint when it ends without one."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return line.rstrip("\n")


def go_on(process: Process) -> list[str]:
    """Let a process that reads a line go on to its end, which must be a good one; the lines that it still prints."""
    output, complaint = process.communicate("go on\n")
    assert process.returncode == 0, complaint
    return output.splitlines()


def killed(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def killed_at_every_step(code: str, template: Path, folder: Path) -> list[Path]:
    """Copies of the folder `template`, in each of which `act(root)` was killed one step later than in the one before.

    `code` defines `act`. A step is whatever changes something in `root`: opening a file to write, making, renaming,
    removing. Being killed before one step is being killed after the one before it; to sync changes nothing that a
    killed process leaves. In the last copy `act` came to its end.
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
    """The same for what changes a bucket: each request but those that only read."""
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
    """Fork a process for each step, so that the imports are paid for once."""
    names: dict[str, Callable[[Path], None]] = {}
    exec(code, names)
    for number in count():  # before step 0, which there is not: it warms up what is imported late
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
