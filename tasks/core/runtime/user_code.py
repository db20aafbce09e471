"""The digests of code that is not the project's, as that of a network of one's own: file by file."""

import ast
import hashlib
import os
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from tasks.core.runtime.core_code import PACKAGE, module_digests, tree_digest

INSTALLED = ("site-packages", "dist-packages", Path(sysconfig.get_path("stdlib")).name)


def user_code_digests(modules: Iterable[str]) -> dict[str, str]:
    """`{"mine/network.py": "3fa9…"}` for every Python file of the imported modules' packages and of what these import,
    and `{"tasks/core/models/tutorial_net.py: Net": "3fa9…"}` for all of the core's modules that they import.

    What is installed counts by its version instead: `{"package timm": "1.0.3"}`.
    """
    digests: dict[str, str] = {}
    of_core: set[str] = set()
    waiting = {place for module in modules if (place := _place(module.partition(".")[0]))}
    seen: set[tuple[Path, str]] = set()
    while waiting:
        folder, name = place = waiting.pop()
        seen.add(place)
        files = [] if folder.name in INSTALLED else _files(folder, name)
        if not files:
            digests |= {f"package {package}": version(package) for package in _packages().get(name, [])}
        for file in files:
            digests[file.relative_to(folder).as_posix()], imported = _read(file)
            of_core |= {module for module in imported if f"{module}.".startswith(f"{PACKAGE}.")}
            names = {module.partition(".")[0] for module in imported - of_core}
            waiting |= {_found(folder, name) for name in names} - seen
    return dict(sorted(digests.items())) | module_digests(of_core)


def _found(folder: Path, name: str) -> tuple[Path, str]:
    """Where an imported top-level module or package lies: beside what imports it, or where Python finds it."""
    beside = (folder, name)
    return beside if _files(*beside) or name in _packages() else _place(name) or beside


def _place(name: str) -> tuple[Path, str] | None:
    """The folder where a top-level module or package lies, and its name there; None if it is in no file."""
    try:
        spec = find_spec(name)
    except ValueError:  # of what a program made by itself
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    if folders:
        return Path(folders[0]).parent, name
    return (Path(spec.origin).parent, name) if spec.origin and spec.has_location else None


def _files(folder: Path, name: str) -> list[Path]:
    """A module's or a package's own; linked folders are part of it, too."""
    found, seen = [folder / f"{name}.py"], set[Path]()
    for place, folders, names in os.walk(folder / name, followlinks=True):
        folders.sort()
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place) / each for each in names if each.endswith(".py")]
    return [file for file in sorted(found) if file.is_file()]


def _read(file: Path) -> tuple[str, set[str]]:
    """A file's digest, and what it imports; a file that is no Python, as a template may be, has one of its bytes."""
    code = file.read_bytes()
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return hashlib.sha256(code).hexdigest()[:12], set()
    return tree_digest(tree), set(_imported(tree))


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules that code imports, wherever in it; what it names by dots alone is of its own package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


@cache
def _packages() -> Mapping[str, list[str]]:
    """What was installed under which name, by the names that are imported."""
    return packages_distributions()
