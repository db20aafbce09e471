"""The digest of the code behind an artifact: symbol by symbol, blind to comments, docstrings and layout.

From the function that makes an artifact it follows names through the core's own modules. Third-party code counts by
its version instead, and settings by their values, so the modules that carry only those, and the store, which changes
no bytes, are not followed.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator, Set
from functools import cache
from pathlib import Path

PACKAGE = "tasks.core"
NOT_FOLLOWED = {f"{PACKAGE}.{name}" for name in ("config", "errors", "recipes", "runtime.files")}
MODULE_BODY = "<module>"

Symbol = tuple[str, str]
"""A module's dotted name and the name of a top-level definition in it."""


def code_digests(function: Callable[..., object]) -> dict[str, str]:
    """`{"tasks/core/models/tutorial_net.py: Net": "3fa9…"}` for every symbol that `function` reaches in the core, itself included."""
    return _digests([(function.__module__, function.__qualname__)])


def module_digests(names: Set[str]) -> dict[str, str]:
    """The same for all that those of the core's modules define which are among `names`."""
    modules = map(_module, sorted(SOURCES.keys() & names))
    return _digests([(module.name, name) for module in modules for name in module.definitions])


def tree_digest(tree: ast.Module) -> str:
    """The digest of a whole file's code."""
    return _short(canonical(_without_docstring(tree.body)))


def _digests(waiting: list[Symbol]) -> dict[str, str]:
    """Of symbols, and of those that they reach."""
    digests: dict[Symbol, str] = {}
    while waiting:
        module, name = _home(waiting.pop())
        if (module.name, name) not in digests:
            used = module.names_used(name)
            digests[module.name, name] = _digest(module, name, used)
            waiting += [symbol for word in used for symbol in module.reached(word)]
            if MODULE_BODY in module.definitions:
                waiting.append((module.name, MODULE_BODY))
    return {f"{module.replace('.', '/')}.py: {name}": digest for (module, name), digest in sorted(digests.items())}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _digest(module: "_Module", name: str, used: set[str]) -> str:
    """Of a symbol's own code, and of where the names come from that it imports."""
    code = [canonical(node) for node in module.definitions.get(name, [])]
    origins = [f"{word}={module.imports[word]}" for word in sorted(used & module.imports.keys())]
    return _short("\n".join(code + origins))


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
    if isinstance(node, ast.JoinedStr):  # Python 3.12 ends formats with an empty string
        fields["values"] = [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
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
    """A core module: its top-level definitions, and what its imported names mean."""

    def __init__(self, name: str, source: str) -> None:
        self.name = name
        tree = ast.parse(source)
        self.definitions: dict[str, list[ast.stmt]] = {}
        for statement in _without_docstring(tree.body):
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                for defined in _defined_names(statement):
                    self.definitions.setdefault(defined, []).append(statement)
        self.imports: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                self._note_import(node)

    def _note_import(self, node: ast.ImportFrom | ast.Import) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                origin, followable = alias.name, not alias.name.startswith(PACKAGE)
            else:
                origin = f"{node.module}.{alias.name}"
                followable = not node.level and not (alias.name == "*" and origin.startswith(PACKAGE))
            if not followable or f"{PACKAGE}.".startswith(f"{origin}."):
                raise ValueError(f"{self.name}: write `from {PACKAGE}… import NAME`; any other import is not followed")
            self.imports[alias.asname or alias.name.partition(".")[0]] = origin

    def names_used(self, name: str) -> set[str]:
        """Names in a definition's code; those of modules as `module.attribute` where that is how they are used."""
        used: set[str] = set()
        waiting: list[ast.AST] = list(self.definitions.get(name, []))
        while waiting:
            node = waiting.pop()
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used |= {node.value.id, f"{node.value.id}.{node.attr}"}
            elif isinstance(node, ast.Name):
                used |= {node.id, f"{node.id}.*"}
            else:
                waiting += ast.iter_child_nodes(node)
        return used

    def reached(self, word: str) -> Iterator[Symbol]:
        """The core's symbols that a used name means."""
        name, _, attribute = word.partition(".")
        origin = self.imports.get(name, "")
        home = origin.rpartition(".")[0]
        if not attribute and name in self.definitions:
            yield self.name, name
        elif origin in SOURCES.keys() - NOT_FOLLOWED and attribute:
            yield from ((origin, each) for each in (_module(origin).definitions if attribute == "*" else [attribute]))
        elif not attribute and home in SOURCES.keys() - NOT_FOLLOWED:
            yield home, origin.rpartition(".")[2]


def _home(symbol: Symbol) -> tuple[_Module, str]:
    """The module that defines a symbol, where another one only passes it on."""
    module, name = _module(symbol[0]), symbol[1]
    if name in module.definitions:
        return module, name
    passed_on = next(iter(module.reached(name)), None)
    return _home(passed_on) if passed_on else (module, MODULE_BODY)


def _defined_names(statement: ast.stmt) -> set[str]:
    """The names that a top-level statement binds; what does more than that counts for the whole module too."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    parts = list(ast.walk(statement))
    bound = {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and bound:
        return bound
    return {MODULE_BODY} | bound | {part.name for part in parts if isinstance(part, ast.FunctionDef | ast.ClassDef)}


def _sources() -> dict[str, str]:
    """The source of every module whose code may change an artifact's bytes, by its name; the store never does."""
    core = Path(__file__).parents[1]
    parts = {path: path.relative_to(core).with_suffix("").parts for path in core.rglob("*.py")}
    return {
        ".".join((PACKAGE, *part)): path.read_text(encoding="utf-8")
        for path, part in parts.items()
        if part[0] != "store" and part[-1] != "__init__"
    }


SOURCES = _sources()  # read when the modules are imported, whatever becomes of the files while a run goes on


@cache
def _module(name: str) -> _Module:
    return _Module(name, SOURCES[name])
