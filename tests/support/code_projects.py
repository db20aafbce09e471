"""Packages `tasks.core` in a folder of their own, whose code is edited and digested."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.core.runtime import core_code

CORE = Path(core_code.__file__).parent

DIGESTS = """
import json, sys
from importlib import import_module
from tasks.core.runtime.core_code import code_digests
module, function = sys.argv[1:]
print(json.dumps(code_digests(getattr(import_module(module), function))))
"""


def output_of(python: str, code: str, *arguments: str, folder: Path | None = None, told: str = "") -> str:
    """What a Python prints that sees the modules in `folder` first, and takes no byte code for their source."""
    environment = {**os.environ, "PYTHONPATH": str(folder or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [python, "-c", code, *arguments],
        env=environment,
        cwd=folder,
        input=told,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return finished.stdout


@dataclass
class Project:
    """A package `tasks.core`, with the real code_digest.py in it."""

    folder: Path

    def write(self, module: str, source: str) -> None:
        path = self.folder / "tasks" / "core" / f"{module}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")

    def edit(self, module: str, old: str, new: str) -> None:
        path = self.folder / "tasks" / "core" / f"{module}.py"
        source = path.read_text(encoding="utf-8")
        assert old in source
        path.write_text(source.replace(old, new), encoding="utf-8")

    def digests(self, module: str = "making", function: str = "make") -> dict[str, str]:
        printed = output_of(sys.executable, DIGESTS, f"tasks.core.{module}", function, folder=self.folder)
        digests: dict[str, str] = json.loads(printed)
        return digests


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {label for label in before.keys() | after.keys() if before.get(label) != after.get(label)}
