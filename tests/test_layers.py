"""The architecture, as pyproject.toml states it."""

import subprocess
import sys
from pathlib import Path

from tasks.core.config import PROJECT


def test_imports_run_one_way() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_task_files_stay_thin() -> None:
    for path in (PROJECT / "tasks").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 50, path.name
