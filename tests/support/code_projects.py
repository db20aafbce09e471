"""Copies of the package `tasks.core` whose code the tests edit and digest."""

import os
import subprocess
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType, ModuleType

from tasks.core.runtime import core_code

CORE = Path(core_code.__file__).parents[1]
CORE_CODE = Path("runtime", "core_code.py")

BUILDERS = (
    "tasks.core.data.synthetic.write_archive",
    "tasks.core.data.dataset.build_dataset",
    "tasks.core.data.checks.build_data_checks",
    "tasks.core.training.train.build_weights",
    "tasks.core.models.tutorial_net.Net",
    "tasks.core.evaluation.evaluate.build_predictions",
    "tasks.core.evaluation.evaluate.build_per_class",
    "tasks.core.reports.report.build_report",
)


@dataclass
class Project:
    """A folder with a package `tasks.core` that contains the real core_code.py."""

    folder: Path

    def path(self, module: str) -> Path:
        """Return the file of a module, which is named as in `models/tutorial_net`."""
        return self.folder / "tasks" / "core" / f"{module}.py"

    def write(self, module: str, source: str) -> None:
        self.path(module).write_text(textwrap.dedent(source), encoding="utf-8")

    def edit(self, module: str, old: str, new: str) -> None:
        path = self.path(module)
        source = path.read_text(encoding="utf-8")
        assert old in source
        path.write_text(source.replace(old, new), encoding="utf-8")

    def load(self) -> ModuleType:
        """Import the project's core_code.py, which reads the sources beside it."""
        spec = spec_from_file_location("core_code_of_project", self.folder / "tasks" / "core" / CORE_CODE)
        assert spec
        assert spec.loader
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def digests(self, function: str = "tasks.core.building.build") -> dict[str, str]:
        return digests_of(self.load(), function)


def digests_of(core_code: ModuleType, function: str) -> dict[str, str]:
    """Return the code digests of a function by name, without importing its module."""
    stand_in = FunctionType((lambda: None).__code__, {})
    stand_in.__module__, _, stand_in.__qualname__ = function.rpartition(".")
    digests: dict[str, str] = core_code.code_digests(stand_in)
    return digests


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    return {label for label in before.keys() | after.keys() if before.get(label) != after.get(label)}


def run_python(python: str, code: str, *arguments: str, folder: Path | None = None, stdin: str = "") -> str:
    """Return what a Python prints that imports modules from `folder` first."""
    environment = {**os.environ, "PYTHONPATH": str(folder or ""), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [python, "-c", code, *arguments],
        env=environment,
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return finished.stdout
