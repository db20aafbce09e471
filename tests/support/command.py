"""The `cifar` command in this process, on one store."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import FolderPlace

from flows.cli.main import main
from tasks.core.store import Store, open_store
from tasks.core.store.history import find_run
from tasks.core.store.runs import RunRecord


@dataclass(frozen=True)
class Cifar:
    """Runs a command with `--store`; all output is captured."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, exit_code: int = 0) -> str:
        """Run a command and return its stdout; stderr must be empty."""
        assert main([*arguments, "--store", str(self.root)]) == exit_code
        printed = self.capsys.readouterr()
        assert printed.err == ""
        return printed.out

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", exit_code=exit_code), parse_constant=pytest.fail)

    def refused(self, *arguments: str, exit_code: int = 2) -> str:
        """Run a command that fails and return its only line on stderr; stdout must be empty."""
        assert main([*arguments, "--store", str(self.root)]) == exit_code
        printed = self.capsys.readouterr()
        assert printed.out == ""
        [line] = printed.err.splitlines()
        return line.removeprefix("error: ")

    @property
    def store(self) -> Store:
        return open_store(self.root)

    @property
    def place(self) -> FolderPlace:
        return FolderPlace(self.root)

    def run(self, name: str) -> RunRecord:
        return find_run(self.store, name)

    def last_entry(self) -> dict[str, str]:
        """The last line of the promotion log."""
        entry: dict[str, str] = json.loads(self.place.read("promotions.jsonl").splitlines()[-1])
        return entry
