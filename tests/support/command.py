"""The `cifar` command in this process, on one store."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from places import FolderPlace

from flows.cli.app import main
from tasks.core.store import Store, open_store
from tasks.core.store.history import find_run
from tasks.core.store.runs import RunRecord


@dataclass(frozen=True)
class Cifar:
    """What is typed after `cifar`, with `--store` behind it."""

    root: Path
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, exit_code: int = 0) -> str:
        """What it prints; nothing may be said beside that."""
        assert main([*arguments, "--store", str(self.root)]) == exit_code
        printed = self.capsys.readouterr()
        assert printed.err == ""
        return printed.out

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", exit_code=exit_code), parse_constant=pytest.fail)

    def refused(self, *arguments: str, exit_code: int = 2) -> str:
        """The one line on stderr that it ends with, having printed nothing."""
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
        """The last line of the log of promotions."""
        entry: dict[str, str] = json.loads(self.place.read("promotions.jsonl").splitlines()[-1])
        return entry
