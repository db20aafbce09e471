"""The pipeline as a user starts it: a real process, in a folder that is not the project's."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tasks.core.config import PROJECT
from tasks.core.pipeline import STAGES

TIMEOUT_S = 300


@dataclass(frozen=True)
class Pipeline:
    """Runs of `flows/cifar_flow.py` on one store, with a Prefect home of their own."""

    store: Path
    home: Path
    cwd: Path
    project: Path = PROJECT
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, self.project / "flows" / "cifar_flow.py", *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=self.cwd,
            env=self.environ(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: object, exit_code: int = 0) -> str:
        """What a whole run prints."""
        process = self.start(*arguments)
        printed, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == exit_code, printed
        return printed

    def environ(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "CIFAR_"))}
        own = {"PREFECT_HOME": str(self.home), "CIFAR_FLOW_STORE": str(self.store)}
        own["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
        return {**inherited, **own, **self.environment}

    def current(self) -> dict[str, Any]:
        return read_json(self.store / "current.json")

    def records(self) -> list[dict[str, Any]]:
        """The run records, oldest first."""
        return [read_json(path) for path in sorted((self.store / "runs").glob("*.json"))]


def run_flow(
    shell: Pipeline, flow: str, *arguments: object, exit_code: int = 0, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """A flow file of the project as a user starts it, to its end, with what it says."""
    done = subprocess.run(
        [sys.executable, str(PROJECT / "flows" / flow), *map(str, arguments)],
        cwd=shell.cwd,
        env=shell.environ() | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def asked(url: str, what: str) -> list[dict[str, Any]]:
    """All that a Prefect server has of something, as `artifacts`."""
    found: list[dict[str, Any]] = httpx.post(f"{url}/{what}/filter", json={}, trust_env=False).raise_for_status().json()
    return found


def copy_of_project(folder: Path) -> Path:
    """The project's code in a folder where it may be edited; `PYTHONPATH` puts it before the installed one."""
    for part in ("flows", "tasks"):
        shutil.copytree(PROJECT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "prefect.yaml"):
        shutil.copy(PROJECT / name, folder)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


ARTIFACTS = tuple(STAGES)


def built(printed: str) -> list[str]:
    """The artifacts that a run built, by name."""
    return [name for name in ARTIFACTS if f"built {name}/" in printed]


def hits(printed: str) -> list[str]:
    """The artifacts that were cache hits; an archive whose dataset is intact is not read at all."""
    return [name for name in ARTIFACTS if f"cache hit {name}/" in printed]
