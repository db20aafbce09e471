"""The environment of a run, for its record: library versions, commit, user and machine."""

import getpass
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tasks.core.config import PROJECT

RECORDED_PACKAGES = ("cifar-flow", "prefect", "torch", "torchvision", "numpy", "pandas", "pyarrow")


@cache
def library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: library_version(name) for name in RECORDED_PACKAGES}}


def current_user() -> str:
    """Return `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a user ID that has no name
        user = "unknown"
    return f"{user}@{platform.node()}"


def git_commit() -> dict[str, str | bool] | None:
    """Return the project's commit and whether files differ from it, or None outside a git checkout."""
    try:
        commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.strip(), "changed": bool(changes)}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
