"""What a run was made with: versions, the project's commit, who and where. For records, never for bytes."""

import getpass
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tasks.core.config import PROJECT

RECORDED = ("cifar-flow", "prefect", "torch", "torchvision", "numpy", "pandas", "pyarrow")


@cache
def library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: library_version(name) for name in RECORDED}}


def who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        user = "unknown"
    return f"{user}@{platform.node()}"


def git_commit() -> dict[str, str | bool] | None:
    """The project's commit, and whether files differ from it; None outside a git checkout."""
    try:
        commit, changes = (_git("rev-parse", "HEAD"), _git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.strip(), "changed": bool(changes)}


def _git(*words: str) -> str:
    command = ["git", "-C", str(PROJECT), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
