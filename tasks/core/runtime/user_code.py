"""The digests of code outside the project, such as that of a custom network: one for each file."""

import ast
import os
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from tasks.core.runtime.core_code import PACKAGE, module_digests, short_hash, tree_digest

INSTALL_FOLDERS = ("site-packages", "dist-packages", Path(sysconfig.get_path("stdlib")).name)

Location = tuple[Path, str]
"""The folder that contains a top-level module or package, and the module's name."""


def user_code_digests(modules: Iterable[str]) -> dict[str, str]:
    """Return the digests of all code that the imported modules depend on.

    Returns:
        `{"mine/network.py": "3fa9…"}` for every Python file of the modules' packages and of the packages that these
        import; `{"tasks/core/models/tutorial_net.py: Net": "3fa9…"}` for the core's modules that they import; and
        `{"package timm": "1.0.3"}` for installed packages.
    """
    digests: dict[str, str] = {}
    core_modules: set[str] = set()
    pending = {location for module in modules if (location := _find_location(module.partition(".")[0]))}
    done: set[Location] = set()
    while pending:
        folder, name = location = pending.pop()
        done.add(location)
        files = [] if folder.name in INSTALL_FOLDERS else _python_files(folder, name)
        if not files:
            digests |= {f"package {package}": version(package) for package in _distributions().get(name, [])}
        for file in files:
            digests[file.relative_to(folder).as_posix()], imported = _read_code(file)
            core_modules |= {module for module in imported if f"{module}.".startswith(f"{PACKAGE}.")}
            names = {module.partition(".")[0] for module in imported - core_modules}
            pending |= {_resolve_import(folder, name) for name in names} - done
    return dict(sorted(digests.items())) | module_digests(core_modules)


def _resolve_import(folder: Path, name: str) -> Location:
    """Return where an imported top-level module is: in the importing folder, or where Python finds it."""
    sibling = (folder, name)
    return sibling if _python_files(*sibling) or name in _distributions() else _find_location(name) or sibling


def _find_location(name: str) -> Location | None:
    try:
        spec = find_spec(name)
    except ValueError:  # a module that a program created at run time
        return None
    paths = list(spec.submodule_search_locations or []) if spec else []
    if spec and spec.origin and spec.has_location:
        paths.append(spec.origin)
    return (Path(paths[0]).parent, name) if paths else None


def _python_files(folder: Path, name: str) -> list[Path]:
    """Return all files of a module or package, those in linked folders included."""
    files, visited = [folder / f"{name}.py"], set[Path]()
    for path, folders, names in os.walk(folder / name, followlinks=True):
        folders.sort()
        if (real := Path(path).resolve()) in visited:
            folders.clear()
        else:
            visited.add(real)
            files += [Path(path) / each for each in names if each.endswith(".py")]
    return [file for file in sorted(files) if file.is_file()]


def _read_code(file: Path) -> tuple[str, set[str]]:
    """Return a file's digest and its absolute imports; a file that is not valid Python (a template) has none."""
    code, imported = file.read_bytes(), set[str]()
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return short_hash(code), imported
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tree_digest(tree), imported


_distributions = cache(packages_distributions)
