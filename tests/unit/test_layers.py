"""The architecture that pyproject.toml declares."""

import subprocess
import sys
import tomllib
from pathlib import Path

from tasks.core.config import PROJECT


def test_imports_follow_the_layers() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_package_and_template_is_packaged() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = [
        path.parent.relative_to(PROJECT) for top in ("flows", "tasks") for path in PROJECT.glob(f"{top}/**/__init__.py")
    ]
    assert sorted(settings["packages"]) == sorted(".".join(package.parts) for package in packages)
    assert settings["package-data"] == {"tasks.core.reports": ["templates/*"]}
    assert any((PROJECT / "tasks/core/reports/templates").iterdir())


def test_task_files_are_at_most_50_lines_long() -> None:
    for path in (PROJECT / "tasks").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 50, path.name
