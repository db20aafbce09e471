"""Clean processes: asking one for a measurement, and answering as one."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A process did not do what it was asked; its last words."""


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def run(*command: object, environment: Mapping[str, str] | None = None) -> str:
    """What a Python process of its own prints, which is told what to run as words after `python`."""
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        say(done.stdout + done.stderr)
        last_words = (done.stderr.strip() or done.stdout.strip() or "no word from it").splitlines()[-1]
        raise Failed(f"{Path(words[1]).name} ended with {done.returncode}: {last_words}")
    return done.stdout


def seconds_of(*command: object, environment: Mapping[str, str] | None = None) -> float:
    """How long a whole process takes, from its start to its end."""
    started = time.perf_counter()
    run(*command, environment=environment)
    return time.perf_counter() - started


def ask(script: str, function: str, **arguments: object) -> Any:
    """What a function answers in a process of its own; arguments and answer travel as JSON."""
    return json.loads(run(HERE / script, function, json.dumps(arguments, default=str)).splitlines()[-1])


def answer(*functions: Callable[..., object]) -> None:
    """Be the process that was asked: the last line that it prints is its answer."""
    name, arguments = sys.argv[1:]
    found = {function.__name__: function for function in functions}[name](**json.loads(arguments))
    print(json.dumps(found))


def prefect_environment(home: Path, **own: str) -> dict[str, str]:
    """The environment of somebody who has set nothing up for Prefect, whose home is `home`; no telemetry is sent."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CIFAR_"))}
    return {**inherited, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", **own}
