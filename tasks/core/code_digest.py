"""The digest of the code behind an artifact: symbol by symbol, blind to comments, docstrings and layout.

From the function that makes an artifact it follows names through the core's own modules. Third-party code counts by
its version instead, and settings by their values, so the modules that carry only those are not followed.
"""

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "tasks.core"
NOT_FOLLOWED = {f"{PACKAGE}.{name}" for name in ("artifact", "config", "errors", "files", "store")}
MODULE_BODY = "<module>"

Symbol = tuple[str, str]
"""A module's dotted name and the name of a top-level definition in it."""


def code_digests(function: Callable[..., object]) -> dict[str, str]:
    """`{"tasks/core/model.py: Net": "3fa9…"}` for every symbol that `function` reaches in the core, itself included."""
    digests: dict[Symbol, str] = {}
    waiting = [(function.__module__, function.__qualname__)]
    while waiting:
        symbol = waiting.pop()
        if symbol not in digests:
            module_name, name = symbol
            module = _module(module_name)
            nodes = module.definitions[name]
            digests[symbol] = hashlib.sha256("".join(map(canonical, nodes)).encode()).hexdigest()[:12]
            waiting += module.reached_from(nodes)
            if MODULE_BODY in module.definitions:
                waiting.append((module_name, MODULE_BODY))
    return {f"{module.replace('.', '/')}.py: {name}": digest for (module, name), digest in sorted(digests.items())}


def canonical(node: object) -> str:
    """The syntax tree as text without positions, docstrings and empty fields, equal on every version of Python.

    `ast.dump` differs between versions: later ones have fields that earlier ones lack, and leave out empty ones.
    """
    if isinstance(node, list):
        return f"[{','.join(map(canonical, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = {name: value for name, value in ast.iter_fields(node) if name not in ("ctx", "kind", "type_comment")}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        fields["body"] = _without_docstring(node.body)
    written = [
        f"{name}={canonical(value)}" for name, value in sorted(fields.items()) if value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(written)})"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    return [statement for statement in body if not _is_string(statement)]


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


class _Module:
    """A core module's top-level definitions, and what its names mean that come from other core modules."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        tree = ast.parse(source)
        self.definitions: dict[str, list[ast.stmt]] = {}
        for statement in _without_docstring(tree.body):
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                for defined in _defined_names(statement) or [MODULE_BODY]:
                    self.definitions.setdefault(defined, []).append(statement)
        self.symbols: dict[str, Symbol] = {}
        self.modules: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                self._note_import(node)

    def _note_import(self, node: ast.ImportFrom | ast.Import) -> None:
        for alias in node.names:
            origin = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            if not origin.startswith(f"{PACKAGE}."):
                continue
            if origin in _module_names():
                if isinstance(node, ast.Import) and not alias.asname:
                    raise ValueError(f"{self.name}: write `from {PACKAGE} import …` in place of `import {origin}`")
                self.modules[alias.asname or alias.name] = origin
            else:
                home, _, symbol = origin.rpartition(".")
                self.symbols[alias.asname or alias.name] = (home, symbol)

    def reached_from(self, nodes: Iterable[ast.stmt]) -> Iterator[Symbol]:
        for node in nodes:
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and part.id in self.definitions:
                    yield self.name, part.id
                elif isinstance(part, ast.Name) and part.id in self.symbols:
                    yield from _followed(self.symbols[part.id])
                elif (
                    isinstance(part, ast.Attribute)
                    and isinstance(part.value, ast.Name)
                    and part.value.id in self.modules
                ):
                    yield from _followed((self.modules[part.value.id], part.attr))


def _defined_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
    return []


def _followed(symbol: Symbol) -> list[Symbol]:
    return [] if symbol[0] in NOT_FOLLOWED else [symbol]


@cache
def _module_names() -> frozenset[str]:
    spec = find_spec(PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    [folder] = spec.submodule_search_locations
    return frozenset(f"{PACKAGE}.{path.stem}" for path in Path(folder).glob("*.py"))


@cache
def _module(name: str) -> _Module:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return _Module(name, Path(spec.origin).read_text(encoding="utf-8"))
